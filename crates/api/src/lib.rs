//! Faces on the network: app ingress, Dapr HTTP, management and metrics.
