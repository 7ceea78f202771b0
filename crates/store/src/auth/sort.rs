//! Go's `sort.Sort` (a pattern-defeating quicksort), which is not stable: of a role's permissions with one key it decides
//! which comes first, and so which one the next grant finds. All members must agree on that, Go etcd's too, so
//! elements are moved in its order.

/// Below so many elements they are inserted one by one.
const INSERTION_MAX: usize = 12;
/// From so many on the pivot is a median of medians, and a few that are out of order are put in their places.
const LONG: usize = 50;
/// Comparisons that choose a pivot, at most.
const SWAPS_MAX: usize = 12;
/// Elements out of order that a nearly sorted slice may have.
const MISPLACED_MAX: usize = 5;

/// What choosing a pivot saw of the order.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hint {
    Unknown,
    Increasing,
    Decreasing,
}

/// Sorts as Go does.
pub fn sort<T>(items: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let (length, limit) = (items.len(), bits(items.len()));
    Sorting { items, less }.sort(0, length, limit);
}

fn bits(n: usize) -> u32 {
    usize::BITS - n.leading_zeros()
}

struct Sorting<'a, T, L> {
    items: &'a mut [T],
    less: L,
}

impl<T, L: Fn(&T, &T) -> bool> Sorting<'_, T, L> {
    fn less(&self, i: usize, j: usize) -> bool {
        (self.less)(&self.items[i], &self.items[j])
    }

    /// Sorts from `a` up to `b`.
    fn sort(&mut self, mut a: usize, mut b: usize, mut limit: u32) {
        let (mut balanced, mut partitioned) = (true, true);
        while b - a > INSERTION_MAX {
            if limit == 0 {
                return self.heap_sort(a, b);
            }
            if !balanced {
                self.break_patterns(a, b);
                limit -= 1;
            }
            let (mut pivot, mut hint) = self.choose_pivot(a, b);
            if hint == Hint::Decreasing {
                self.items[a..b].reverse();
                pivot = b - 1 - (pivot - a);
                hint = Hint::Increasing;
            }
            if balanced && partitioned && hint == Hint::Increasing && self.sort_nearly_sorted(a, b) {
                return;
            }
            if a > 0 && !self.less(a - 1, pivot) {
                a = self.partition_equal(a, b, pivot);
                continue;
            }
            let length = b - a;
            let (middle, already) = self.partition(a, b, pivot);
            partitioned = already;
            let (left, right) = (middle - a, b - middle);
            balanced = left.min(right) >= length / 8;
            if left < right {
                self.sort(a, middle, limit);
                a = middle + 1;
            } else {
                self.sort(middle + 1, b, limit);
                b = middle;
            }
        }
        self.insertion_sort(a, b);
    }

    fn insertion_sort(&mut self, a: usize, b: usize) {
        for i in a + 1..b {
            let mut j = i;
            while j > a && self.less(j, j - 1) {
                self.items.swap(j, j - 1);
                j -= 1;
            }
        }
    }

    fn heap_sort(&mut self, a: usize, b: usize) {
        let length = b - a;
        for root in (0..=(length - 1) / 2).rev() {
            self.sift_down(root, length, a);
        }
        for i in (0..length).rev() {
            self.items.swap(a, a + i);
            self.sift_down(0, i, a);
        }
    }

    fn sift_down(&mut self, mut root: usize, length: usize, first: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= length {
                return;
            }
            if child + 1 < length && self.less(first + child, first + child + 1) {
                child += 1;
            }
            if !self.less(first + root, first + child) {
                return;
            }
            self.items.swap(first + root, first + child);
            root = child;
        }
    }

    /// Smaller ones to the left of the pivot, others to its right; whether they were already.
    fn partition(&mut self, a: usize, b: usize, pivot: usize) -> (usize, bool) {
        self.items.swap(a, pivot);
        let (mut i, mut j) = self.narrow(a, a + 1, b - 1);
        if i > j {
            self.items.swap(j, a);
            return (j, true);
        }
        while i <= j {
            self.items.swap(i, j);
            (i, j) = self.narrow(a, i + 1, j - 1);
        }
        self.items.swap(j, a);
        (j, false)
    }

    /// Steps over what is on its side of the pivot at `a` already.
    fn narrow(&self, a: usize, mut i: usize, mut j: usize) -> (usize, usize) {
        while i <= j && self.less(i, a) {
            i += 1;
        }
        while i <= j && !self.less(j, a) {
            j -= 1;
        }
        (i, j)
    }

    /// Those equal to the pivot first, then the greater ones; none is smaller. Answers where the second begin.
    fn partition_equal(&mut self, a: usize, b: usize, pivot: usize) -> usize {
        self.items.swap(a, pivot);
        let (mut i, mut j) = (a + 1, b - 1);
        loop {
            while i <= j && !self.less(a, i) {
                i += 1;
            }
            while i <= j && self.less(a, j) {
                j -= 1;
            }
            if i > j {
                return i;
            }
            self.items.swap(i, j);
            (i, j) = (i + 1, j - 1);
        }
    }

    /// Sorts what has only a few elements out of order; false: it has more.
    fn sort_nearly_sorted(&mut self, a: usize, b: usize) -> bool {
        let mut i = a + 1;
        for _ in 0..MISPLACED_MAX {
            while i < b && !self.less(i, i - 1) {
                i += 1;
            }
            if i == b {
                return true;
            }
            if b - a < LONG {
                return false;
            }
            self.items.swap(i, i - 1);
            if i - a >= 2 {
                self.shift_left(i - 1);
            }
            if b - i >= 2 {
                self.shift_right(i + 1, b);
            }
        }
        false
    }

    fn shift_left(&mut self, mut j: usize) {
        while j >= 1 && self.less(j, j - 1) {
            self.items.swap(j, j - 1);
            j -= 1;
        }
    }

    fn shift_right(&mut self, mut j: usize, b: usize) {
        while j < b && self.less(j, j - 1) {
            self.items.swap(j, j - 1);
            j += 1;
        }
    }

    /// Scatters some elements, by numbers that depend on the length only.
    fn break_patterns(&mut self, a: usize, b: usize) {
        let length = b - a;
        let mut random = length as u64;
        let mask = (1_u64 << bits(length)) - 1;
        let middle = a + length / 4 * 2;
        for at in middle - 1..=middle + 1 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = usize::try_from(random & mask).expect("below twice the length");
            self.items.swap(at, a + if other >= length { other - length } else { other });
        }
    }

    fn choose_pivot(&self, a: usize, b: usize) -> (usize, Hint) {
        let quarter = (b - a) / 4;
        let mut swaps = 0;
        let mut around = |at: usize| match b - a >= LONG {
            true => self.median([at - 1, at, at + 1], &mut swaps),
            false => at,
        };
        let candidates = [around(a + quarter), around(a + 2 * quarter), around(a + 3 * quarter)];
        let pivot = self.median(candidates, &mut swaps);
        let hint = match swaps {
            0 => Hint::Increasing,
            SWAPS_MAX => Hint::Decreasing,
            _ => Hint::Unknown,
        };
        (pivot, hint)
    }

    fn median(&self, [mut a, mut b, mut c]: [usize; 3], swaps: &mut usize) -> usize {
        self.order(&mut a, &mut b, swaps);
        self.order(&mut b, &mut c, swaps);
        self.order(&mut a, &mut b, swaps);
        b
    }

    fn order(&self, a: &mut usize, b: &mut usize, swaps: &mut usize) {
        if self.less(*b, *a) {
            *swaps += 1;
            std::mem::swap(a, b);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Go's `sort.Sort` (`testdata/auth/golden.go`).
    const GOLDEN: &str = include_str!("../../testdata/auth/sort.txt");

    /// Appends and sorts again and again, as grants do, with few different keys; what comes of it, as a sum.
    fn sum(seed: u64, length: u64) -> u64 {
        let mut state = seed;
        let mut draw = |n: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % n
        };
        let mut items: Vec<(u64, u64)> = Vec::new();
        for n in 0..length {
            items.push((draw(length / 3 + 1), n));
            if draw(4) != 0 {
                sort(&mut items, |a, b| a.0 < b.0);
            }
        }
        sort(&mut items, |a, b| a.0 < b.0);
        assert!(items.is_sorted_by_key(|item| item.0));
        items.iter().fold(0, |sum: u64, item| sum.wrapping_mul(1_000_003).wrapping_add(item.1))
    }

    #[test]
    fn equal_elements_end_up_where_go_puts_them() {
        let mut lines = 0;
        for line in GOLDEN.lines() {
            let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            assert_eq!(sum(numbers[0], numbers[1]), numbers[2], "{line}");
            lines += 1;
        }
        assert_eq!(lines, 300);
    }
}
