//! Who made a module, and what its maker says that it may do.
//!
//! A module carries a token, signed by an account: which capabilities it has, its name and version, the hash of all
//! that is not the token, and how long all that holds. The format is Wascap's, in all its generations; keys are nkeys.
//!
//! | file | subject |
//! |---|---|
//! | [`keys`] | key pairs, their texts and their files |
//! | [`token`] | a token's text, its header and its signature |
//! | [`claims`] | what a token says |
//! | [`capability`] | names of capabilities, and the grants that they stand for |
//! | [`section`] | the token in a module, and the module's hash |
//! | [`trust`] | whose word counts: operators, accounts, modules |
//! | [`mod@verify`] | all of it at once, and which part did not hold |
//! | [`policy`] | what an organisation allows |
//!
//! Nothing here knows the network, or files other than those of keys, trust and policies.

pub mod capability;
pub mod claims;
pub mod keys;
pub mod policy;
pub mod section;
pub mod token;
pub mod trust;
pub mod verify;

pub use capability::Capability;
pub use claims::{Claims, ModuleClaims, Signers, Subject};
pub use keys::{KeyPair, PublicKey, Role};
pub use trust::TrustStore;
pub use verify::{Refusal, Verified, verify, verify_token};
