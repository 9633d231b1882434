//! The nodes of the swarm: how they join and leave, who may, where they are and who is missing.
//!
//! - [`membership`] is what hosts ask to become nodes, [`authority`] who issues their certificates;
//! - [`peer`] is what managers ask of each other, [`peers`] their channels, `probe` whether they are there;
//! - `managers` tells nodes where the managers are, `twin` a moved node from a copied one;
//! - [`health`] says how many managers may be lost, and who is missing.

pub mod authority;
pub mod health;
pub(crate) mod managers;
pub mod membership;
pub mod peer;
pub mod peers;
pub(crate) mod probe;
pub(crate) mod twin;
