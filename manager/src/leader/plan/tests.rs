//! The leader's decisions: single cases, and a simulated cluster that must keep its promises whatever
//! happens, and come to rest once nothing does.

mod drain;
mod large;
mod levels;
mod root;
mod rotation;
mod scenarios;
mod simulation;
mod updates;
mod world;
