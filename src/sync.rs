//! What the kernel should hold, what it holds, and the plan between the two.
