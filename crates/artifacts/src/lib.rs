//! Fetches and caches the files that apps are made of.
