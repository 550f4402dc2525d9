//! Bonds outlive bodies: those that an older body wrote become bonds of this one's schema, one step a schema. Pure.
//!
//! A migration changes the keys and values that it knows; comments, order and spacing of a file stay. Every step that a
//! released body needs stays in [`MIGRATIONS`] for good.

use std::collections::BTreeMap;

use toml_edit::DocumentMut;

use super::SCHEMA;

/// The file in a folder of peers that says which schema they are written in, a number and a line end. It is hidden, so
/// that nobody takes it for a bond, and lies in the folder, so that it is exchanged together with them.
pub const MARKER: &str = ".schema";

/// Files of peers, `peers/phone.toml` → text.
pub type Texts = BTreeMap<String, String>;

/// The same, to be changed. A file that is no TOML is not among them: it stays as it is, for its reader to report.
pub type Documents = BTreeMap<String, DocumentMut>;

/// The step from one schema to the next.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// The schema that it begins at.
    pub from: u32,
    /// Makes the next one of it. What it cannot translate it leaves, for the reader to report with its place.
    pub change: fn(&mut Documents),
}

/// All steps up to [`SCHEMA`]. There was one schema so far.
pub const MIGRATIONS: &[Migration] = &[];

/// What a body writes, and from where it finds the way there.
#[derive(Debug, Clone, Copy)]
pub struct Forms<'a> {
    /// The schema that it reads and writes.
    pub own: u32,
    /// The steps that it knows.
    pub steps: &'a [Migration],
}

/// Those of this body.
pub const FORMS: Forms<'static> = Forms { own: SCHEMA, steps: MIGRATIONS };

/// There is no way from one schema to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no way from bonds of schema {from} to schema {to}")]
pub struct NoWay {
    /// The schema that the bonds are in.
    pub from: u32,
    /// The schema that is wanted.
    pub to: u32,
}

impl Forms<'_> {
    /// Bonds of schema `from` as bonds of this body.
    ///
    /// # Errors
    /// They are newer, or a step is missing.
    pub fn forward(&self, from: u32, texts: &Texts) -> Result<Texts, NoWay> {
        let no_way = NoWay { from, to: self.own };
        if from > self.own {
            return Err(no_way);
        }
        let step = |at: u32| self.steps.iter().find(|step| step.from == at).ok_or(no_way);
        let steps = (from..self.own).map(step).collect::<Result<Vec<_>, _>>()?;
        let mut texts = texts.clone();
        if steps.is_empty() {
            return Ok(texts);
        }
        let read = |(file, text): (&String, &String)| Some((file.clone(), text.parse().ok()?));
        let mut documents: Documents = texts.iter().filter_map(read).collect();
        for step in steps {
            (step.change)(&mut documents);
        }
        texts.extend(documents.into_iter().map(|(file, document)| (file, document.to_string())));
        Ok(texts)
    }
}

/// The schema that a marker names.
pub fn marked(text: &str) -> Option<u32> {
    text.strip_suffix('\n')?.parse().ok().filter(|schema| *schema > 0)
}

/// The text of a schema's marker.
pub fn marker(schema: u32) -> String {
    format!("{schema}\n")
}

#[cfg(test)]
pub(crate) mod tests {
    use toml_edit::value;

    use super::*;

    /// From 1: `key` is called `public-key`. From 2: `grants` must be given.
    pub const STEPS: &[Migration] = &[
        Migration {
            from: 1,
            change: |documents| {
                for document in documents.values_mut() {
                    if let Some((mut key, item)) = document.remove_entry("key") {
                        key.leaf_decor_mut().clear();
                        document.insert_formatted(&toml_edit::Key::new("public-key"), item);
                    }
                }
            },
        },
        Migration {
            from: 2,
            change: |documents| {
                for document in documents.values_mut().filter(|document| !document.contains_key("grants")) {
                    document["grants"] = value(toml_edit::Array::new());
                }
            },
        },
    ];

    fn texts(files: &[(&str, &str)]) -> Texts {
        files.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn two_steps_are_taken_in_order_and_what_a_person_wrote_stays() {
        let forms = Forms { own: 3, steps: STEPS };
        let old = texts(&[
            ("peers/a.toml", "key = \"K\"\n# mine\naddress = \"10.88.16.2\" # desk\n"),
            ("peers/b.toml", "no toml"),
        ]);
        let new = forms.forward(1, &old).unwrap();
        assert_eq!(
            new["peers/a.toml"],
            "# mine\naddress = \"10.88.16.2\" # desk\npublic-key = \"K\"\ngrants = []\n"
        );
        assert_eq!(new["peers/b.toml"], "no toml");
        assert_eq!(forms.forward(3, &new).unwrap(), new);
        // From the middle only the second step is taken.
        let middle = texts(&[("peers/a.toml", "key = \"K\"\n")]);
        assert_eq!(forms.forward(2, &middle).unwrap()["peers/a.toml"], "key = \"K\"\ngrants = []\n");
    }

    #[test]
    fn newer_bonds_and_missing_steps_are_refused() {
        let forms = Forms { own: 3, steps: &STEPS[1..] };
        assert_eq!(forms.forward(4, &Texts::new()), Err(NoWay { from: 4, to: 3 }));
        assert_eq!(forms.forward(1, &Texts::new()), Err(NoWay { from: 1, to: 3 }));
    }

    #[test]
    fn every_schema_up_to_ours_has_its_step() {
        assert!(FORMS.forward(1, &Texts::new()).is_ok());
        assert_eq!(MIGRATIONS.len() + 1, SCHEMA as usize);
    }

    #[test]
    fn a_marker_is_a_number_and_a_line_end() {
        assert_eq!(marked(&marker(7)), Some(7));
        for text in ["", "1", "0\n", "-1\n", "one\n", "1\n\n", " 1\n"] {
            assert_eq!(marked(text), None, "{text:?}");
        }
    }
}
