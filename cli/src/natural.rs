//! Natural order of names, as Docker's lists have it: `web-2` before `web-10`.

use std::cmp::Ordering;

/// Compares runs of digits by their value and all else by character.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            // Equal by value (`a01` and `a1`): some order all the same.
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        if x.is_ascii_digit() && y.is_ascii_digit() {
            let ((p, left_rest), (q, right_rest)) = (number(left), number(right));
            match p.len().cmp(&q.len()).then_with(|| p.cmp(q)) {
                Ordering::Equal => (left, right) = (left_rest, right_rest),
                unequal => return unequal,
            }
        } else {
            match x.cmp(&y) {
                Ordering::Equal => {
                    (left, right) = (&left[x.len_utf8()..], &right[y.len_utf8()..]);
                }
                unequal => return unequal,
            }
        }
    }
}

/// The leading digits without leading zeros, and what follows.
fn number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.trim_start_matches('0'), rest)
}

#[cfg(test)]
mod tests {
    use super::compare;
    use proptest::prelude::*;

    #[test]
    fn numbers_count_by_value() {
        let mut names = ["web-10", "web-2", "web", "a10b2", "a10b10", "a2", "node1", "node01"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["a2", "a10b2", "a10b10", "node01", "node1", "web", "web-2", "web-10"]);
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[a1é0]{0,6}", b in "[a1é0]{0,6}", c in "[a1é0]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
