//! Tags (MG §2.1, §5.6).

use muster_core::lifecycle::changed_tags;
use proptest::prelude::*;

fn some(most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::hash_set("[a-f]", 0..most).prop_map(|tags| tags.into_iter().collect())
}

proptest! {
    #[test]
    fn mg136_kept_tags_keep_their_order_and_new_tags_follow(tags in some(6), add in some(4), remove in some(4)) {
        // One added and one removed tag is a rename, which has its own test.
        prop_assume!(!(add.len() == 1 && remove.len() == 1));
        let after = changed_tags(&tags, &add, &remove);
        let kept: Vec<&String> = tags.iter().filter(|tag| !remove.contains(tag)).collect();
        let new: Vec<&String> = add.iter().filter(|tag| !kept.contains(tag)).collect();
        prop_assert_eq!(after.iter().collect::<Vec<_>>(), [kept, new].concat());
    }

    #[test]
    fn mg136_a_renamed_tag_keeps_its_position(tags in some(6), old in "[a-f]", new in "[g-k]") {
        let after = changed_tags(&tags, std::slice::from_ref(&new), std::slice::from_ref(&old));
        match tags.iter().position(|tag| *tag == old) {
            Some(place) => prop_assert_eq!((after.len(), &after[place]), (tags.len(), &new)),
            None => prop_assert_eq!(after, [tags, vec![new]].concat()),
        }
    }

    #[test]
    fn changing_tags_is_idempotent(tags in some(6), add in some(4), remove in some(4)) {
        prop_assume!(add.iter().all(|tag| !remove.contains(tag)));
        let once = changed_tags(&tags, &add, &remove);
        prop_assert_eq!(changed_tags(&once, &add, &remove), once);
    }
}
