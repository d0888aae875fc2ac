//! An object is never another's: what a reader finds was published together, also where a slot is used anew.
#![cfg(loom)]

use std::sync::Arc;

use loom::thread;
use tidegate_core::owner::{ObjectKind, ObjectMark, OwnerMark, OwnerTable, TableFull};

fn names() -> ([ObjectMark; 2], [OwnerMark; 2]) {
    let object = |id| ObjectMark::of(ObjectKind::File, "provider", id);
    ([object("one"), object("two")], [OwnerMark::of(Some("a")), OwnerMark::of(Some("b"))])
}

#[test]
fn a_slot_used_anew_shows_no_mixture() {
    loom::model(|| {
        let ([one, two], [a, b]) = names();
        let table = Arc::new(OwnerTable::new(1));
        table.insert(one, a).unwrap();
        let writer = {
            let table = table.clone();
            thread::spawn(move || {
                table.remove(one);
                table.insert(two, b)
            })
        };
        // A thread of its own: loom does not interleave what the first thread only reads.
        let reader = {
            let table = table.clone();
            thread::spawn(move || (table.owner_of(two), table.owner_of(one)))
        };
        let (of_two, of_one) = reader.join().unwrap();
        assert!(of_two.is_none_or(|it| it == b));
        assert!(of_one.is_none_or(|it| it == a));
        assert_eq!(writer.join().unwrap(), Ok(()));
        assert_eq!((table.owner_of(one), table.owner_of(two)), (None, Some(b)));
    });
}

#[test]
fn the_last_slot_is_one_writers() {
    loom::model(|| {
        let ([one, two], [a, b]) = names();
        let table = Arc::new(OwnerTable::new(1));
        let writer = {
            let table = table.clone();
            thread::spawn(move || table.insert(two, b))
        };
        let results = [table.insert(one, a), writer.join().unwrap()];
        assert_eq!(results.iter().filter(|it| **it == Err(TableFull)).count(), 1);
        assert_eq!([table.owner_of(one), table.owner_of(two)].iter().flatten().count(), 1);
    });
}

#[test]
fn a_late_removal_frees_nothing_else() {
    loom::model(|| {
        let ([one, two], [a, _]) = names();
        let table = Arc::new(OwnerTable::new(1));
        table.insert(one, a).unwrap();
        let remover = {
            let table = table.clone();
            thread::spawn(move || table.remove(one))
        };
        let second = {
            let table = table.clone();
            thread::spawn(move || {
                table.remove(one);
                // The same owner: but for the count of uses, the word would be the one the other removal has read.
                let _ = table.insert(two, a);
            })
        };
        remover.join().unwrap();
        second.join().unwrap();
        assert_eq!((table.owner_of(one), table.owner_of(two)), (None, Some(a)));
    });
}
