//! How objects look in lists: Docker's columns, field names, filters and order.

mod image;
mod network;
mod node;
mod service;
mod task;

pub(crate) use image::images;
pub(crate) use network::networks;
pub(crate) use node::nodes;
pub(crate) use service::services;
pub(crate) use task::{TASK_FILTERS, TaskList, tasks};

use swarm_model::Labels;

/// Labels as Docker's JSON lists have them: `a=1,b=2`.
fn label_text(labels: &Labels) -> String {
    let pairs = labels.iter().map(|(key, value)| format!("{key}={value}"));
    pairs.collect::<Vec<_>>().join(",")
}
