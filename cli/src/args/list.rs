//! Flags that every list has.

use clap::{Args, ValueEnum};

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// One object a line.
    Json,
}

/// Flags of lists.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ListArgs {
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Show only what matches; give it again for alternatives or further keys
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = filter)]
    pub(crate) filter: Vec<(String, String)>,
    /// Print a table, or JSON: one object a line
    #[arg(long, value_enum, default_value_t = Format::Table, value_name = "table|json", hide_possible_values = true)]
    pub(crate) format: Format,
    /// Do not shorten ids, images and errors
    #[arg(long)]
    pub(crate) no_trunc: bool,
}

/// Flags of lists of tasks.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct PsArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Show ids of nodes instead of their names
    #[arg(long)]
    pub(crate) no_resolve: bool,
}

fn filter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("use KEY=VALUE".to_owned()),
    }
}
