//! Building templates by recipes, and looking at builds.

mod args;
mod look;
mod new;
mod screen;

pub(super) use args::Build;

use super::{failure::Failure, interruptible, session::Session};
use args::BuildCommand;

pub(super) async fn build(session: &Session, args: Build) -> Result<u8, Failure> {
    match args.command {
        None => new::build(session, args.new).await,
        Some(_) if args.new.name.is_some() => Err(Failure::Own(
            "name a template to build, or give one of the commands ls, get, logs and cancel"
                .to_owned(),
        )),
        Some(BuildCommand::Ls(ls)) => interruptible(look::ls(session, ls)).await.map(|()| 0),
        Some(BuildCommand::Get { id }) => interruptible(look::get(session, id)).await.map(|()| 0),
        Some(BuildCommand::Logs { follow, id }) => {
            interruptible(look::logs(session, id, follow)).await
        }
        Some(BuildCommand::Cancel { ids }) => {
            interruptible(look::cancel(session, ids)).await.map(|()| 0)
        }
    }
}
