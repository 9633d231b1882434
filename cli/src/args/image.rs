//! `swarmctl image`.

use std::path::PathBuf;

use clap::Subcommand;

use super::ListArgs;

/// What to do with the images of this node.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// Load images from an archive: an OCI layout, or what `docker save` writes
    #[command(after_help = "Examples:
  swarmctl image load -i image.tar
  docker save app | swarmctl image load")]
    Load {
        /// Archive [default: standard input]
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
        /// Print nothing
        #[arg(short, long)]
        quiet: bool,
    },
    /// List the images of this node
    #[command(visible_alias = "list", after_help = "Filters: dangling, label, reference")]
    Ls(ListArgs),
    /// Remove images from this node
    #[command(visible_alias = "remove")]
    Rm {
        /// References or ids
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
    },
}
