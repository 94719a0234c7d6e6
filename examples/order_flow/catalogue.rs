//! What the shop sells.

/// Every article's number and its price in cents.
pub(crate) const ARTICLES: &[(&str, u64)] = &[
    ("BAG-CANVAS", 3_900),
    ("BED-BEECH-140", 64_900),
    ("BLANKET-WOOL", 8_900),
    ("BOWL-STONEWARE", 2_400),
    ("CANDLE-BEESWAX", 1_200),
    ("CHAIR-OAK", 18_900),
    ("CLOCK-WALL", 5_900),
    ("CUP-ENAMEL", 1_400),
    ("CURTAIN-LINEN", 7_900),
    ("DESK-ASH-160", 49_900),
    ("KETTLE-STEEL", 6_900),
    ("KNIFE-CHEF", 9_900),
    ("LAMP-DESK", 8_400),
    ("LAMP-FLOOR", 15_900),
    ("MIRROR-ROUND", 11_900),
    ("PAN-IRON-28", 5_400),
    ("PILLOW-DOWN", 6_400),
    ("RUG-JUTE-200", 17_900),
    ("SHELF-PINE", 12_900),
    ("SOFA-LINEN", 119_900),
    ("STOOL-CORK", 7_400),
    ("TABLE-WALNUT", 89_900),
    ("TEAPOT-CLAY", 4_400),
    ("VASE-GLASS", 3_400),
];

/// Whether the shop sells this article.
pub(crate) fn sells(article: &str) -> bool {
    ARTICLES.iter().any(|(known, _)| *known == article)
}
