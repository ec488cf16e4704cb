//! Signs of life on what takes over a second, where a person looks at stderr.

use std::{future::Future, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is faster shows nothing.
const QUIET_FOR: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// Shows what is being done once it has taken a while.
pub(super) async fn spinner<T>(what: &str, work: impl Future<Output = T>) -> T {
    let style = style("{spinner} {msg} ({elapsed})");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        .with_style(style)
        .with_message(what.to_owned());
    shown_later(&bar, work).await
}

/// Like [`spinner`], with a count of bytes that the work keeps.
pub(super) async fn counting<T, F: Future<Output = T>>(
    what: &str,
    work: impl FnOnce(ProgressBar) -> F,
) -> T {
    let style = style("{spinner} {msg} {bytes} ({bytes_per_sec}, {elapsed})");
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden())
        .with_style(style)
        .with_message(what.to_owned());
    let work = work(bar.clone());
    shown_later(&bar, work).await
}

fn style(template: &str) -> ProgressStyle {
    // A template that can't be read would be a plain spinner.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

async fn shown_later<T>(bar: &ProgressBar, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let done = tokio::select! {
        biased;
        done = &mut work => done,
        () = tokio::time::sleep(QUIET_FOR) => {
            // Draws nothing where stderr is no terminal.
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(TICK);
            work.await
        }
    };
    bar.finish_and_clear();
    done
}
