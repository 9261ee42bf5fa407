//! Functions in C, and of the server under other names: their bodies cannot be looked into, so that what counts is the
//! extension that they belong to.

/// Extensions whose functions in C do what their volatility says. Not here: what runs SQL it is given as text
/// (tablefunc, xml2, dblink), what looks at the server (pg_stat_statements, pageinspect, …).
const TRUSTED: &[&str] = &[
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "dict_int",
    "dict_xsyn",
    "earthdistance",
    "fuzzystrmatch",
    "h3",
    "hstore",
    "intarray",
    "ip4r",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "postgis",
    "postgis_raster",
    "seg",
    "semver",
    "unaccent",
    "uuid-ossp",
    "vector",
];

/// Functions in C that are good in spite of their volatility, or of an extension that is not trusted as a whole.
const SAFE_C: &[(&str, &str)] = &[
    ("insert_username", "insert_username"),
    ("moddatetime", "moddatetime"),
    ("pgcrypto", "gen_random_bytes"),
    ("pgcrypto", "gen_random_uuid"),
    ("pgcrypto", "gen_salt"),
    ("pgcrypto", "pgp_pub_encrypt"),
    ("pgcrypto", "pgp_pub_encrypt_bytea"),
    ("pgcrypto", "pgp_sym_encrypt"),
    ("pgcrypto", "pgp_sym_encrypt_bytea"),
    ("tablefunc", "normal_rand"),
    ("timescaledb", "time_bucket"),
    ("uuid-ossp", "uuid_generate_v1"),
    ("uuid-ossp", "uuid_generate_v1mc"),
    ("uuid-ossp", "uuid_generate_v4"),
];

/// A function in C is safe.
pub(super) fn c_is_safe(extension: Option<&str>, name: &str, volatile: bool) -> bool {
    let Some(extension) = extension else { return false };
    SAFE_C.binary_search(&(extension, name)).is_ok()
        || (!volatile && TRUSTED.binary_search(&extension).is_ok())
}

/// What CREATE TYPE … AS RANGE makes, by what it is within the server.
pub(super) fn is_constructor(symbol: &str) -> bool {
    let count =
        symbol.strip_prefix("multirange_constructor").or_else(|| symbol.strip_prefix("range_constructor"));
    count.is_some_and(|count| count.len() == 1)
}

/// A safe function in C may read tables: PostGIS looks up reference systems, in functions declared immutable too.
pub(super) fn c_reads(extension: &str, name: &str, immutable: bool) -> bool {
    let lookup = ["transform", "srid", "asgeojson", "asgml", "askml", "asx3d"];
    extension.starts_with("postgis") && (!immutable || lookup.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_for_the_search() {
        assert!(TRUSTED.is_sorted_by(|a, b| a < b));
        assert!(SAFE_C.is_sorted_by(|a, b| a < b));
    }
}
