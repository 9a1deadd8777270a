//! Translates between guest memory and blocks, one module an ABI.
