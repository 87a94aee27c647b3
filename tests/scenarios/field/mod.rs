//! What people's own problems have shown to be told wrongly: one scenario for each kind.

mod silent_loss;
