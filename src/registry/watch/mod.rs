//! Telling sidecars what is and what changes: one stream of lines each, and who has what in effect.
//!
//! No watcher has a buffer of its own: each reads the shared changes at its own pace, and one that falls behind them lists again.
//! A listing walks the live view by key while it changes, then replays the changes made meanwhile, so that it costs no copy.

mod listing;
mod reads;
mod sidecars;
mod stream;

pub use reads::LongPoll;
pub use sidecars::Sidecars;
pub use stream::Watch;
