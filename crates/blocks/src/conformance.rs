//! The conformance tests that every provider of a block passes.
