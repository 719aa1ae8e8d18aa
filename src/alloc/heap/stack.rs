//! The free slots of a pool: a stack of numbers that never grows in a fast path.

/// Numbers, the last one on top, and room for more.
#[derive(Debug, Default)]
pub(super) struct Stack {
    items: Vec<u32>,
    len: usize,
}

impl Stack {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where the next number goes, if there is room: it is taken once that was written.
    #[inline(always)]
    pub(super) fn push(&mut self, item: u32) -> Option<()> {
        *self.items.get_mut(self.len)? = item;
        self.len += 1;
        Some(())
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<u32> {
        let top = self.len.wrapping_sub(1);
        let item = *self.items.get(top)?;
        self.len = top;
        Some(item)
    }

    /// Takes number `index` out, and puts the last one there.
    #[inline(always)]
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<u32> {
        if index >= self.len {
            return None;
        }
        let last = self.pop()?;
        // The last one itself is gone already, and what is written in its place is no more read.
        self.items
            .get_mut(index)
            .map(|place| std::mem::replace(place, last))
    }

    /// Makes room for `more` numbers beyond those that it had room for.
    pub(super) fn add_room(&mut self, more: usize) {
        self.items.resize(self.items.len() + more, 0);
    }

    /// Drops the numbers of which `keep` says no, and the room of `less`.
    pub(super) fn retain(&mut self, less: usize, keep: impl Fn(u32) -> bool) {
        let room = self.items.len() - less;
        self.items.truncate(self.len);
        self.items.retain(|item| keep(*item));
        self.len = self.items.len();
        self.items.resize(room.max(self.len), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_out_as_they_went_in() {
        let mut stack = Stack::default();
        assert_eq!(stack.push(1), None, "no room yet");
        stack.add_room(4);
        assert!((1..5).all(|item| stack.push(item).is_some()));
        assert_eq!((stack.push(5), stack.len()), (None, 4));
        assert_eq!(stack.swap_remove(4), None);
        assert_eq!(stack.swap_remove(3), Some(4));
        assert_eq!(stack.swap_remove(0), Some(1));
        assert_eq!(stack.pop(), Some(2));
        stack.push(7).expect("room");
        stack.retain(1, |item| item != 3);
        assert_eq!(
            (stack.pop(), stack.pop(), stack.is_empty()),
            (Some(7), None, true)
        );
        assert!((1..4).all(|item| stack.push(item).is_some()));
        assert_eq!(stack.push(4), None);
    }
}
