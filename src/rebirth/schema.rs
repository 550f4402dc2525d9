//! Whether a body of another schema can go on with the bonds: pure.

use crate::peer::Refused;

/// What becomes of the bonds when a body of schema `next` takes the place of one of schema `now`; `None` where nothing
/// does. `kept` says whether bonds of schema `next` were kept when a body of that schema was left.
///
/// # Errors
/// The next body could not read them.
pub fn migration(now: u32, next: u32, kept: bool) -> Result<Option<String>, Refused> {
    if now == next {
        return Ok(None);
    }
    if next > now {
        let rest = "its first boot brings the bonds forward, and gives way to this body if its law does not hold them";
        return Ok(Some(format!("schema migration: {now} → {next}; {rest}")));
    }
    if kept {
        let rest = "its first boot returns to the bonds that were kept, without those revoked since; newer ones wait";
        return Ok(Some(format!("schema migration: {now} → {next}; {rest}")));
    }
    Err(Refused::new(
        format!("the bonds are of schema {now}, and that body reads up to {next}: it could hold nobody"),
        format!("choose a body whose schema is {now} or later"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_is_told_and_back_needs_what_was_kept() {
        assert_eq!(migration(1, 1, false).unwrap(), None);
        assert!(migration(1, 2, false).unwrap().unwrap().starts_with("schema migration: 1 → 2;"));
        assert!(migration(2, 1, true).unwrap().unwrap().starts_with("schema migration: 2 → 1;"));
        assert!(migration(2, 1, false).unwrap_err().message.contains("reads up to 1"));
    }
}
