//! The replicated state, from outside: its promises under random logs, single rules, and what older
//! versions wrote.

mod carry;
mod golden;
mod levels;
mod model;
mod nodes;
mod readiness;
mod root;
mod rules;
mod support;
mod tunnels;
