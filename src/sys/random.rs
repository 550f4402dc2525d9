//! Random numbers of the kernel.

use wireguard_control::Key;

/// 32 random bytes.
pub fn bytes() -> [u8; 32] {
    Key::generate_preshared().0
}
