//! Tiles: the tree's hashes in pieces that anybody can fetch and keep, named as in <https://c2sp.org/tlog-tiles>.
//!
//! ```text
//! /tile/0/x001/x234/067        256 hashes of leaves, from leaf 1,234,067 · 256 on
//! /tile/1/017.p/32             32 hashes, each the root over 256 leaves
//! ```

use std::fmt;
use std::ops::Range;

/// The highest level that the specification names.
const MAX_LEVEL: u8 = 63;
/// Levels of the tree between those of two tiles.
const HEIGHT: u32 = 8;

/// Consecutive hashes of one level of the tree, by their name. That there are as many is not said by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    level: u8,
    index: u64,
    width: u16,
}

impl Tile {
    /// Hashes of a full tile.
    pub const FULL: u16 = 256;

    /// Reads the path of a tile, as it stands in a request. Each tile has one path and no other is read: no query, no
    /// percent-encoding, no zeros too many.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("/tile/")?;
        let (rest, width) = match rest.split_once(".p/") {
            Some((rest, width)) => {
                (rest, width.parse().ok().filter(|width| (1..Self::FULL).contains(width))?)
            }
            None => (rest, Self::FULL),
        };
        let (level, digits) = rest.split_once('/')?;
        let level = level.parse().ok().filter(|level| *level <= MAX_LEVEL)?;
        let mut index = 0_u64;
        for three in digits.split('/') {
            let three: u16 = three.strip_prefix('x').unwrap_or(three).parse().ok()?;
            index = index.checked_mul(1_000)?.checked_add(three.into())?;
        }
        let tile = Self { level, index, width };
        (tile.to_string() == path).then_some(tile)
    }

    /// Counted from the leaves: a hash of it stands for 256^level leaves.
    pub const fn level(&self) -> u8 {
        self.level
    }

    /// Its number in the level.
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes it holds, 1 to 256.
    pub const fn width(&self) -> u16 {
        self.width
    }

    /// The leaves over which its hashes stand; none where no log has so many.
    pub fn leaves(&self) -> Option<Range<u64>> {
        let one = 1_u64.checked_shl(HEIGHT * u32::from(self.level))?;
        let start = self.index.checked_mul(u64::from(Self::FULL))?.checked_mul(one)?;
        let end = start.checked_add(one.checked_mul(self.width.into())?)?;
        Some(start..end)
    }
}

/// Its path.
impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/tile/{}", self.level)?;
        let mut power = 1;
        while self.index / power >= 1_000 {
            power *= 1_000;
        }
        while power > 1 {
            write!(f, "/x{:03}", self.index / power % 1_000)?;
            power /= 1_000;
        }
        write!(f, "/{:03}", self.index % 1_000)?;
        if self.width < Self::FULL { write!(f, ".p/{}", self.width) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tile(level: u8, index: u64, width: u16) -> Tile {
        Tile { level, index, width }
    }

    #[test]
    fn each_tile_has_one_path() {
        for (path, named, leaves) in [
            ("/tile/0/000", tile(0, 0, 256), Some(0..256)),
            ("/tile/0/x001/x234/067", tile(0, 1_234_067, 256), Some(315_921_152..315_921_408)),
            ("/tile/0/999.p/1", tile(0, 999, 1), Some(255_744..255_745)),
            ("/tile/1/x001/000.p/255", tile(1, 1_000, 255), Some(65_536_000..65_601_280)),
            ("/tile/7/000.p/255", tile(7, 0, 255), Some(0..255 << 56)),
            ("/tile/7/000", tile(7, 0, 256), None),
            ("/tile/8/000.p/1", tile(8, 0, 1), None),
            ("/tile/63/000", tile(63, 0, 256), None),
            ("/tile/0/x018/x446/x744/x073/x709/x551/615", tile(0, u64::MAX, 256), None),
        ] {
            assert_eq!(Tile::parse(path), Some(named), "{path}");
            assert_eq!((named.to_string(), named.leaves()), (path.to_owned(), leaves));
        }
    }

    #[test]
    fn no_other_path_is_one() {
        for path in [
            "",
            "/",
            "/checkpoint",
            "tile/0/000",
            "/tile/0",
            "/tile/0/",
            "/tile/0/0",
            "/tile/0/0000",
            "/tile/0/x000",
            "/tile/0/x000/001",
            "/tile/0/001/002",
            "/tile/0/x001/x002",
            "/tile/0/x1/002",
            "/tile/0/+01",
            "/tile/0/0x1",
            "/tile/0/-01",
            "/tile/+0/000",
            "/tile/00/000",
            "/tile/64/000",
            "/tile/-1/000",
            "/tile/0/000/",
            "/tile//0/000",
            "/tile/0/000.p/0",
            "/tile/0/000.p/256",
            "/tile/0/000.p/01",
            "/tile/0/000.p/+1",
            "/tile/0/000.p/1.p/1",
            "/tile/0/000.p/",
            "/tile/0/000.p",
            "/tile/0/000?",
            "/tile/0/%30%30%30",
            "/tile/0/000 ",
            "/tile/0/x018/x446/x744/x073/x709/x551/616",
            "/tile/entries/000",
            "/tile/data/000",
        ] {
            assert_eq!(Tile::parse(path), None, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_written_the_same(level in 0..=63_u8, index: u64, width in 1..=256_u16) {
            let named = tile(level, index, width);
            proptest::prop_assert_eq!(Tile::parse(&named.to_string()), Some(named));
        }
    }
}
