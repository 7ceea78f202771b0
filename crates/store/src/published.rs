//! Where the newest state stands: one thread puts it there, any may look, and none waits for another.

use crate::Applied;
use std::ops::Deref;
use std::sync::Arc;

#[cfg(not(feature = "interleavings"))]
type Place = arc_swap::ArcSwap<Applied>;
/// The checker of interleavings (docs/TESTING.md) can't look into a lock-free pointer: for it the swap is one step, and
/// other threads run before and after it.
#[cfg(feature = "interleavings")]
type Place = shuttle::sync::Mutex<Arc<Applied>>;

/// The newest published state.
#[derive(Debug)]
pub struct Published(Place);

#[cfg(not(feature = "interleavings"))]
impl Published {
    /// Begins with a state.
    pub fn new(applied: Arc<Applied>) -> Published {
        Published(Place::from(applied))
    }

    /// A newer state takes the place of the one before, which lives as long as somebody looks at it.
    pub fn store(&self, applied: Arc<Applied>) {
        self.0.store(applied);
    }

    /// The newest one, to keep.
    pub fn load_full(&self) -> Arc<Applied> {
        self.0.load_full()
    }

    /// The newest one, for a short look: cheaper than [`Published::load_full`] while few are held at a time.
    pub fn load(&self) -> impl Deref<Target = Arc<Applied>> + use<> {
        self.0.load()
    }
}

#[cfg(feature = "interleavings")]
impl Published {
    /// Begins with a state.
    pub fn new(applied: Arc<Applied>) -> Published {
        Published(Place::new(applied))
    }

    /// A newer state takes the place of the one before, which lives as long as somebody looks at it.
    pub fn store(&self, applied: Arc<Applied>) {
        let before = std::mem::replace(&mut *self.0.lock().expect("nothing panics under it"), applied);
        // Its last holder may give pages back, which takes another lock.
        drop(before);
    }

    /// The newest one, to keep.
    pub fn load_full(&self) -> Arc<Applied> {
        self.0.lock().expect("nothing panics under it").clone()
    }

    /// The newest one, for a short look.
    pub fn load(&self) -> impl Deref<Target = Arc<Applied>> + use<> {
        Box::new(self.load_full())
    }
}
