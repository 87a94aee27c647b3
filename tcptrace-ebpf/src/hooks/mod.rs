//! One file a hook, named as the hook.

mod inet_csk_accept;
mod inet_sock_set_state;
mod segment;
