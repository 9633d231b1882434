//! The buckets: the two bits after a value's highest one tell them apart, so that each power of two has four.

/// How many of a value's highest bits count.
const BITS: u32 = 3;
/// How many buckets a power of two has.
const GROUP: u64 = 1 << (BITS - 1);

/// The bucket of a value: of a small one, the value itself.
pub(crate) fn bucket(value: u64) -> usize {
    if value < GROUP {
        return value as usize;
    }
    let shift = u64::BITS - value.leading_zeros() - BITS;
    // The highest bit of what is left after the shift stands for the group before it.
    (u64::from(shift) * GROUP + (value >> shift)) as usize
}

/// A bucket's first value, and how many it has.
pub(crate) fn range(bucket: usize) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < GROUP {
        return (bucket, 1);
    }
    let shift = bucket / GROUP - 1;
    ((GROUP + bucket % GROUP) << shift, 1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap_up_to_the_largest_value() {
        let mut next = 0;
        for bucket_ in 0..=bucket(u64::MAX) {
            let (first, width) = range(bucket_);
            assert_eq!(first, next);
            let last = first + (width - 1);
            assert_eq!((bucket(first), bucket(last)), (bucket_, bucket_));
            next = last.wrapping_add(1);
        }
        assert_eq!(next, 0, "the last bucket ends with the largest value");
    }
}
