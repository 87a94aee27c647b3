//! The page that `tcptrace report` makes, in a browser: Debian's Chromium without a screen.

mod browser;
mod page;
mod recordings;
