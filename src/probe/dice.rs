//! Random numbers out of one seed: the same seed asks the same questions in the same order.

use blake2::{Blake2s256, Digest as _};

/// Bytes that nobody can foretell without the seed.
#[derive(Debug, Clone)]
pub struct Dice {
    seed: [u8; 32],
    round: u64,
    left: Vec<u8>,
}

impl Dice {
    /// From 32 random bytes.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { seed, round: 0, left: Vec::new() }
    }

    fn byte(&mut self) -> u8 {
        loop {
            if let Some(byte) = self.left.pop() {
                return byte;
            }
            let hash = Blake2s256::new().chain_update(self.seed).chain_update(self.round.to_le_bytes());
            self.left = hash.finalize().to_vec();
            self.round += 1;
        }
    }

    /// So many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    /// A number below `limit` (0 when that is 0). 32 bits over a limit of 16 leave no bias that could be measured.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = (0..4).fold(0_usize, |number, _| number << 8 | usize::from(self.byte()));
        number.checked_rem(limit).unwrap_or_default()
    }

    /// A port, 1 to 65535.
    pub fn port(&mut self) -> u16 {
        u16::try_from(self.below(65_535) + 1).unwrap_or(u16::MAX)
    }

    /// Puts the items in another order, each as likely as any.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }

    /// So many small letters.
    pub fn letters(&mut self, count: usize) -> String {
        (0..count).map(|_| char::from(b'a' + u8::try_from(self.below(26)).unwrap_or_default())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_seed_others() {
        let bytes = |seed| Dice::new([seed; 32]).bytes(80);
        assert_eq!(bytes(1), bytes(1));
        assert_ne!(bytes(1), bytes(2));
        assert_ne!(bytes(1)[..32], bytes(1)[32..64]);
    }

    #[test]
    fn every_port_and_every_order_can_come_out() {
        let mut dice = Dice::new([7; 32]);
        let ports: Vec<_> = (0..4000).map(|_| dice.port()).collect();
        assert!(ports.iter().all(|port| *port > 0));
        for quarter in 0..4 {
            let count = ports.iter().filter(|port| **port / 16_384 == quarter).count();
            assert!((850..1150).contains(&count), "{count} in quarter {quarter}");
        }
        let mut orders = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let mut items = [1, 2, 3];
            dice.shuffle(&mut items);
            orders.insert(items);
        }
        assert_eq!(orders.len(), 6);
    }
}
