"""Names that would do something, if they were not escaped."""

from hypothesis import strategies as st

FRAGMENTS = (
    *("`", "```", "\n```\n", "|", " | ", "\\", "\\|", "~~~", "*", "**x**", "_", "# ", "\n# x\n"),
    *("[x](https://evil.example)", "![x](y)", "https://evil.example", "www.evil.example", "a@b.c"),
    *("<script>alert(1)</script>", "</svg>", "<!--", "-->", "]]>", "<![CDATA[", "&lt;", "&", '"'),
    *("'", "---", "\n---\n", ": ", " #", "- ", "!!python/none", "&x", "*x", "{", "}", "[", "]"),
    *("\u202e", "\u2066", "\u200b", "\ufeff", "\u2028", "\x00", "\x1b[31m", "\r", "\r\n", "\x85"),
    *(
        "\ud800",
        "\ufffe",
        "\U000e0041",
        "null",
        "true",
        "1e3",
        "~",
        "é",
        "模型",
        "$(id)",
        "..",
        "/",
    ),
)

evil_names = st.lists(
    st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=6)), min_size=1, max_size=5
).map("".join)
"""Any text, most of it made of such fragments."""
