//! Tests of the page that `tcptrace report` makes, in Debian's Chromium without a screen.

mod browser;
mod page;
mod recordings;
