//! The agent that keeps the kernel in step with the bonds.
