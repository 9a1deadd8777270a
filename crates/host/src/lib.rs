//! Apps, versions, triggers, routing, limits: the life of an invocation.
