//! What a virtual key may be allowed to do, in families: what `operations:` of the configuration names. Which paths
//! belong to which family is data of the dialects; whether a call is let through is asked once, before its body.

/// Operations that are allowed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// Speech, transcriptions, translations.
    Audio,
    /// Jobs over many calls that a provider keeps.
    Batches,
    /// Chat completions.
    Chat,
    /// Completions of a prompt.
    Completions,
    /// Counting tokens.
    CountTokens,
    /// Embeddings.
    Embeddings,
    /// Files that a provider keeps.
    Files,
    /// Images: made, edited, varied.
    Images,
    /// Messages.
    Messages,
    /// Lists of models.
    Models,
    /// Responses: made, counted, compacted.
    Responses,
    /// Responses that a provider keeps: read, listed, deleted, cancelled.
    StoredResponses,
}

/// A set of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(u16);

impl Family {
    /// All of them.
    pub const ALL: [Family; 12] = [
        Family::Audio,
        Family::Batches,
        Family::Chat,
        Family::Completions,
        Family::CountTokens,
        Family::Embeddings,
        Family::Files,
        Family::Images,
        Family::Messages,
        Family::Models,
        Family::Responses,
        Family::StoredResponses,
    ];

    /// Its name in the configuration and in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Family::Audio => "audio",
            Family::Batches => "batches",
            Family::Chat => "chat",
            Family::Completions => "completions",
            Family::CountTokens => "count_tokens",
            Family::Embeddings => "embeddings",
            Family::Files => "files",
            Family::Images => "images",
            Family::Messages => "messages",
            Family::Models => "models",
            Family::Responses => "responses",
            Family::StoredResponses => "stored_responses",
        }
    }

    /// The family with this name.
    pub fn named(name: &str) -> Option<Family> {
        Family::ALL.into_iter().find(|it| it.name() == name)
    }

    /// What it speaks about outlives the call and is named by an id: off unless the operator names it, since whoever
    /// knows or lists ids could reach what another caller left there.
    pub const fn is_of_objects(self) -> bool {
        matches!(self, Family::Batches | Family::Files | Family::StoredResponses)
    }
}

impl Families {
    /// None of them.
    pub const NONE: Families = Families(0);
    /// Every one: for whom no virtual key sets apart.
    pub const ALL: Families = Families((1 << Family::ALL.len()) - 1);
    /// What a virtual key may do unless the configuration says otherwise: all but the families of objects.
    pub const GENERATION: Families = {
        let mut set = Families::NONE;
        let mut at = 0;
        while at < Family::ALL.len() {
            if !Family::ALL[at].is_of_objects() {
                set = set.with(Family::ALL[at]);
            }
            at += 1;
        }
        set
    };

    /// These and one more.
    #[must_use]
    pub const fn with(self, family: Family) -> Families {
        Families(self.0 | 1 << family as u8)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, others: Families) -> Families {
        Families(self.0 | others.0)
    }

    /// Whether `family` is among them.
    pub const fn contains(self, family: Family) -> bool {
        self.0 & 1 << family as u8 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_and_sets_hold_what_was_put_in() {
        for family in Family::ALL {
            assert_eq!(Family::named(family.name()), Some(family));
            assert!(Families::ALL.contains(family) && !Families::NONE.contains(family));
            assert!(Families::NONE.with(family).contains(family));
            assert_eq!(Families::GENERATION.contains(family), !family.is_of_objects(), "{}", family.name());
        }
        assert_eq!(Family::named("Files"), None);
        let two = Families::NONE.with(Family::Chat).and(Families::NONE.with(Family::Files));
        assert!(two.contains(Family::Files) && two.contains(Family::Chat) && !two.contains(Family::Models));
    }
}
