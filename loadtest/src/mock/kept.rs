//! What the provider keeps for an organization: files, batches, stored responses. Bounded: the oldest go first. Decides
//! who finds what (an organization finds its own), never what a call about it means.

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::Value;

use super::refusal::Dialect;

/// What something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Batch,
    Response,
}

/// Something kept.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The place of its organization.
    pub(crate) organization: usize,
    pub(crate) dialect: Dialect,
    pub(crate) number: u64,
    pub(crate) made_s: u64,
    /// Unix time in s from which on it is gone.
    pub(crate) expires_s: Option<u64>,
    pub(crate) what: What,
}

/// What of it is kept.
#[derive(Clone, Debug)]
pub(crate) enum What {
    File(File),
    Batch(Box<Batch>),
    Response(Box<Response>),
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) name: String,
    pub(crate) media_type: String,
    pub(crate) purpose: String,
    pub(crate) content: Rc<[u8]>,
}

/// A batch. It was worked out when it was made, and is told from `work` on.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) work: Work,
    /// The calls in it, and how many of them failed.
    pub(crate) calls: u64,
    pub(crate) failed: u64,
    /// What came of them, a line each.
    pub(crate) results: Rc<[u8]>,
    /// The same of a batch that was cancelled before.
    pub(crate) cancelled_results: Rc<[u8]>,
    /// What the request said, and what a description repeats.
    pub(crate) request: Value,
    /// The file with its results, where results are in a file, once it is there.
    pub(crate) output: Option<u64>,
}

/// A response.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) work: Work,
    pub(crate) background: bool,
    pub(crate) items: Vec<Value>,
    /// As it is when it is done, and before.
    pub(crate) done: Value,
    pub(crate) begun: Value,
}

/// Work that takes a time. Times are in ms since the mock started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) ends_ms: f64,
    pub(crate) cancelled_ms: Option<f64>,
}

/// How far work has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Running,
    Done,
    Cancelled,
}

impl Work {
    pub(crate) fn stage(&self, now_ms: f64) -> Stage {
        match self.cancelled_ms {
            Some(_) => Stage::Cancelled,
            None if now_ms >= self.ends_ms => Stage::Done,
            None => Stage::Running,
        }
    }

    /// Cancels it, if it is not over.
    pub(crate) fn cancel(&mut self, now_ms: f64) {
        if self.stage(now_ms) == Stage::Running {
            self.cancelled_ms = Some(now_ms);
        }
    }
}

impl Object {
    pub(crate) fn kind(&self) -> Kind {
        match self.what {
            What::File(_) => Kind::File,
            What::Batch(_) => Kind::Batch,
            What::Response(_) => Kind::Response,
        }
    }

    pub(crate) fn id(&self) -> String {
        id_of(self.kind(), self.dialect, self.number)
    }

    fn bytes(&self) -> usize {
        match &self.what {
            What::File(file) => file.content.len(),
            What::Batch(batch) => batch.results.len() + batch.cancelled_results.len(),
            // Once as it is written, twice as it is kept.
            What::Response(response) => 3 * response.done.to_string().len(),
        }
    }
}

/// What something is called.
pub(crate) fn id_of(kind: Kind, dialect: Dialect, number: u64) -> String {
    let prefix = match (kind, dialect) {
        (Kind::File, Dialect::Messages) => "file_",
        (Kind::File, Dialect::Chat) => "file-",
        (Kind::Batch, Dialect::Messages) => "msgbatch_",
        (Kind::Batch, Dialect::Chat) => "batch_",
        (Kind::Response, _) => "resp_",
    };
    format!("{prefix}mock{number:016x}")
}

/// Everything that is kept.
#[derive(Debug)]
pub(crate) struct Kept {
    objects: BTreeMap<u64, (usize, Object)>,
    bytes: usize,
    objects_max: usize,
    bytes_max: usize,
}

impl Kept {
    pub(crate) fn new(objects_max: usize, bytes_max: usize) -> Kept {
        Kept { objects: BTreeMap::new(), bytes: 0, objects_max, bytes_max }
    }

    /// Keeps it, and lets go of the oldest beyond the bounds; what is larger than all that may be kept is not.
    pub(crate) fn add(&mut self, object: Object) {
        let bytes = object.bytes();
        if bytes > self.bytes_max || self.objects_max == 0 {
            return;
        }
        while self.objects.len() >= self.objects_max || self.bytes + bytes > self.bytes_max {
            let Some((_, (freed, _))) = self.objects.pop_first() else { break };
            self.bytes -= freed;
        }
        self.bytes += bytes;
        self.objects.insert(object.number, (bytes, object));
    }

    /// What an organization calls `id`, unless it expired.
    pub(crate) fn find(
        &mut self,
        organization: usize,
        kind: Kind,
        id: &str,
        now_s: u64,
    ) -> Option<&mut Object> {
        let number = u64::from_str_radix(id.rsplit_once("mock")?.1, 16).ok()?;
        let object = &mut self.objects.get_mut(&number)?.1;
        let is_it = object.organization == organization && object.kind() == kind && object.id() == id;
        (is_it && object.expires_s.is_none_or(|at| now_s < at)).then_some(object)
    }

    /// Forgets it.
    pub(crate) fn remove(&mut self, number: u64) {
        if let Some((bytes, _)) = self.objects.remove(&number) {
            self.bytes -= bytes;
        }
    }

    /// What an organization has of a kind, the newest first.
    pub(crate) fn list(
        &self,
        organization: usize,
        dialect: Dialect,
        kind: Kind,
        now_s: u64,
    ) -> impl Iterator<Item = &Object> {
        let all = self.objects.values().rev().map(|(_, object)| object);
        all.filter(move |object| {
            object.organization == organization
                && object.dialect == dialect
                && object.kind() == kind
                && object.expires_s.is_none_or(|at| now_s < at)
        })
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.objects.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(organization: usize, number: u64, bytes: usize) -> Object {
        let (name, media_type, purpose) = ("f".to_owned(), String::new(), String::new());
        let what = What::File(File { name, media_type, purpose, content: vec![0; bytes].into() });
        let (dialect, made_s, expires_s) = (Dialect::Chat, 0, (number == 9).then_some(5));
        Object { organization, dialect, number, made_s, expires_s, what }
    }

    #[test]
    fn the_oldest_go_first_and_each_organization_finds_its_own() {
        let mut kept = Kept::new(3, 100);
        (1..=3).for_each(|number| kept.add(file(0, number, 10)));
        let id = |number| id_of(Kind::File, Dialect::Chat, number);
        assert!(
            kept.find(0, Kind::File, &id(1), 0).is_some() && kept.find(1, Kind::File, &id(1), 0).is_none()
        );
        assert!(
            kept.find(0, Kind::Batch, &id(1), 0).is_none() && kept.find(0, Kind::File, "file-1", 0).is_none()
        );
        kept.add(file(0, 4, 10));
        kept.add(file(0, 5, 85));
        let there: Vec<u64> = kept.list(0, Dialect::Chat, Kind::File, 0).map(|it| it.number).collect();
        assert_eq!((there, kept.bytes), (vec![5, 4], 95));
        kept.add(file(0, 6, 101));
        kept.remove(5);
        kept.remove(5);
        assert_eq!((kept.objects.len(), kept.bytes), (1, 10));
        kept.add(file(0, 9, 1));
        assert!(
            kept.find(0, Kind::File, &id(9), 4).is_some() && kept.find(0, Kind::File, &id(9), 5).is_none()
        );
        assert_eq!(kept.list(0, Dialect::Chat, Kind::File, 5).count(), 1);
    }
}
