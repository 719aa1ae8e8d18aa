//! The free slots of a pool: a stack of numbers that never grows in a fast path.

/// Numbers, the last one on top, and room for more. Room that was never used is never touched.
#[derive(Debug, Default)]
pub(super) struct Stack {
    items: Vec<u32>,
    /// How many there may be.
    room: usize,
}

impl Stack {
    #[inline(always)]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Puts a number on top, if there is room.
    #[inline(always)]
    pub(super) fn push(&mut self, item: u32) -> Option<()> {
        if self.items.len() == self.items.capacity() {
            return None;
        }
        self.items.push(item);
        Some(())
    }

    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<u32> {
        self.items.pop()
    }

    /// Takes number `index` out, and puts the last one there.
    #[inline(always)]
    pub(super) fn swap_remove(&mut self, index: usize) -> Option<u32> {
        let place = self.items.get_mut(index)?;
        let taken = *place;
        let last = self.items.pop()?;
        // The last one itself is gone already.
        if let Some(place) = self.items.get_mut(index) {
            *place = last;
        }
        Some(taken)
    }

    /// Makes room for `more` numbers beyond those that it had room for.
    pub(super) fn add_room(&mut self, more: usize) {
        self.room += more;
        self.items.reserve(self.room - self.items.len());
    }

    /// How many there may be.
    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Drops the numbers of which `keep` says no, and the room of `less`.
    pub(super) fn retain(&mut self, less: usize, keep: impl Fn(u32) -> bool) {
        self.room -= less;
        self.items.retain(|item| keep(*item));
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
        assert_eq!(stack.len(), 4);
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
    }
}
