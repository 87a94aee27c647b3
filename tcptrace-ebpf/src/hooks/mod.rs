//! The hooks: a file or folder for each, with its name.

mod cpu_sample;
mod inet_csk_accept;
mod inet_sock_set_state;
mod listen_overflow;
mod request_sock;
mod sched_process_exit;
mod sched_switch;
mod segment;
mod socket_iterator;
mod task_file_iterator;
mod tcp_reset;
mod tcp_retransmit_skb;
mod timewait_sock;
