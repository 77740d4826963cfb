"""Taxonomies: every mistake at once, sensitivity from above, and the IAB's tables."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penchant.errors import ConfigError
from penchant.files import write_text
from penchant.taxonomy import (
    AUDIENCE_1_1,
    AUDIENCE_SENSITIVE,
    CONTENT_2_2,
    CONTENT_3,
    Node,
    Taxonomy,
    audience_ids,
    check,
    from_labels,
    import_iab,
    load,
    to_yaml,
)

AUDIENCE_HEADER = (
    "\tUnique ID\tParent ID\tCondensed Name (1st, 2nd, Last Tier)\tTier 1\tTier 2\tTier 3\tTier 4\tTier 5\tTier 6\t*Extension Notes"
)
CONTENT_TITLE = "Relational ID System\t\t\tContent Taxonomy {version} Tiered Categories\t\t\t\tExtension"
CONTENT_HEADER = "Unique ID\tParent\tName\tTier 1\tTier 2\tTier 3\tTier 4\t"


def audience_row(identifier: str, parent: str, *tiers: str) -> str:
    return "\t".join(["", identifier, parent, " | ".join(tiers), *tiers, *[""] * (6 - len(tiers)), ""])


def content_row(identifier: str, parent: str, *tiers: str, extension: str = "") -> str:
    return "\t".join([identifier, parent, tiers[-1], *tiers, *[""] * (4 - len(tiers)), extension])


AUDIENCE_ROWS = [
    AUDIENCE_HEADER,
    audience_row("1", "", "Demographic"),
    audience_row("2", "1", "Demographic", "Age Range"),
    audience_row("206", "", "Interest"),
    audience_row("404", "206", "Interest", "Health and Medical Services"),
    audience_row("407", "404", "Interest", "Health and Medical Services", "Medical Health"),
    audience_row("408", "407", "Interest", "Health and Medical Services", "Medical Health", "Café & “Gym” 🏋"),
]


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    return tmp_path / "table.tsv"


def forest(*nodes: tuple[str, str | None]) -> Taxonomy:
    return Taxonomy(nodes=tuple(Node(id=name, name=name, parent=parent) for name, parent in nodes))


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    path.write_text(
        """
        nodes:
          - {id: sports, name: Sports}
          - {id: sports.running, parent: sport, name: Running}
          - {id: sports, name: Sports again}
          - {id: a, parent: b, name: A}
          - {id: b, parent: a, name: B}
          - {id: Upper Case, name: Malformed}
          - {id: pets, name: Pets, iab: "198"}
        """
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    heading, *mistakes = str(caught.value).splitlines()
    assert heading == f"{path}: 5 mistakes"
    assert mistakes == [
        "  - duplicate id 'sports'",
        "  - sports.running: unknown parent 'sport'; did you mean 'sports' or 'sports.running'?",
        "  - id 'Upper Case': use lower-case letters, digits, - and _, with dots between levels",
        "  - pets: iab '198' is no id of the IAB Audience Taxonomy 1.1 (segtax 4), such as 410",  # 198 to 205 are not given out
        "  - cycle: a → b → a",
    ]


@pytest.mark.parametrize("name", ["", ".", "a.", ".a", "a..b", "A", "a b", "é", "a\n", "-a", "a._b", "a\x00", "１"])
def test_a_malformed_id_is_named(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(forest((name, None)), "here")
    assert f"id {name!r}: use lower-case letters" in str(caught.value)


@pytest.mark.parametrize("name", ["a", "0", "a-b_c", "sports.running.trail-5", "a" * 1000])
def test_a_well_formed_id_passes(name: str) -> None:
    check(forest((name, None)), "here")


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([("a", "a")], "cycle: a → a"),
        ([("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")], "cycle: a → b → c → a"),  # d hangs below the cycle and is no part of it
        ([("a", "b"), ("b", "a"), ("c", "c")], "cycle: c → c"),
    ],
)
def test_each_cycle_is_told_once(nodes: list[tuple[str, str | None]], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(forest(*nodes), "here")
    lines = str(caught.value).splitlines()
    assert f"  - {message}" in lines
    assert sum("cycle" in line for line in lines) == len({frozenset(line.split(" → ")) for line in lines[1:]}) == len(lines) - 1


@pytest.mark.parametrize(
    ("segtax", "iab", "fine"),
    [(4, "410", True), (4, "1680", False), (7, "JLBCU7", True), (7, "1680", True), (7, "JLBCU77", False), (7, "", False)],
)
def test_an_outside_id_is_held_against_its_own_table(segtax: int, iab: str, fine: bool) -> None:
    taxonomy = Taxonomy(segtax=segtax, nodes=(Node(id="a", name="A", iab=iab),))
    if fine:
        check(taxonomy, "here")
    else:
        with pytest.raises(ConfigError, match="a: iab"):
            check(taxonomy, "here")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the keys name, version and nodes"),
        ("[]", "expected the keys name, version and nodes"),
        ("name: a", "nodes: missing"),
        ("nodes: []", "nodes: "),
        ("nodes: [{id: a}]", "nodes.0.name: missing"),
        ("nodes: [{id: a, name: A, sensitiv: true}]", "unknown key 'nodes.0.sensitiv'; did you mean 'sensitive'"),
        ("nodes: [{id: a, name: A, iab: 410}]", "nodes.0.iab: "),
        ("nodes: [{id: no, name: A}]", "nodes.0.id: "),  # YAML's false
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "taxonomy.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)


def test_sensitivity_reaches_everything_below_and_nothing_else() -> None:
    nodes = (
        Node(id="life.health.sleep", name="Sleep", parent="life.health"),  # before its parent: order doesn't matter
        Node(id="life", name="Life"),
        Node(id="life.health", name="Health", parent="life", sensitive=True),
        Node(id="life.health.sleep.apnoea", name="Apnoea", parent="life.health.sleep"),
        Node(id="life.work", name="Work", parent="life"),
        Node(id="life.healthy", name="Healthy", parent="life"),  # a longer name is not below
    )
    taxonomy = Taxonomy(nodes=nodes)
    check(taxonomy, "here")
    assert taxonomy.sensitive == {"life.health", "life.health.sleep", "life.health.sleep.apnoea"}


def test_children_descendants_and_leaves_follow_parents_in_file_order() -> None:
    taxonomy = forest(("b", None), ("a", None), ("b.y", "b"), ("b.x", "b"), ("b.y.z", "b.y"))
    assert taxonomy.children == {"b": ["b.y", "b.x"], "b.y": ["b.y.z"]}
    assert taxonomy.descendants("b") == ["b.y", "b.y.z", "b.x"]
    assert taxonomy.descendants("a") == []
    assert taxonomy.leaves == ("a", "b.x", "b.y.z")


def test_an_unknown_interest_brings_the_nearest() -> None:
    taxonomy = forest(("sports", None), ("pets", None))
    assert taxonomy.get("pets", "here").name == "pets"
    with pytest.raises(ConfigError, match="here: unknown interest 'sport'; did you mean 'sports'"):
        taxonomy.get("sport", "here")


def test_a_label_is_the_name_or_the_value_itself() -> None:
    taxonomy = from_labels(["rec.sport-hockey", "sci_med"], "groups")
    assert [taxonomy.label(each) for each in ("rec.sport-hockey", "sci_med", "ACME")] == ["rec.sport hockey", "sci med", "ACME"]
    assert taxonomy.name == "groups"
    assert taxonomy.leaves == ("rec.sport-hockey", "sci_med")


NAMED = Taxonomy(
    nodes=(Node(id="run", name="Running", names={"zh": "跑步", "de": "Laufen"}), Node(id="cats", name="Cats", names={"zh": "猫咪"}))
)


def test_a_name_in_a_language_is_shown_or_else_the_name() -> None:
    assert [NAMED.label("run", each) for each in ("zh", "de", "fr", "", None)] == ["跑步", "Laufen", "Running", "Running", "Running"]
    assert NAMED.label("run") == "Running"
    assert NAMED.label("cats", "de") == "Cats"
    assert NAMED.label("acme", "zh") == "acme"
    assert NAMED.languages == ("de", "zh")


def test_a_language_without_a_name_is_refused_with_those_there_are() -> None:
    for language in (None, "zh", "de"):
        NAMED.require_language(language, "here")
    with pytest.raises(ConfigError, match="here: no interest has a name in 'fr'; known: de, zh"):
        NAMED.require_language("fr", "here")
    with pytest.raises(ConfigError, match="here: no interest has a name in 'zh'$"):
        forest(("a", None)).require_language("zh", "here")


@pytest.mark.parametrize("language", ["", "z", "ZH", "zho", "zh-CN", "z1", "zh\n", "中文"])
def test_a_malformed_language_is_named(language: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(Taxonomy(nodes=(Node(id="a", name="A", names={language: "甲"}),)), "here")
    assert f"a: names: {language!r} is no ISO 639-1 code, such as zh" in str(caught.value)


@pytest.mark.parametrize("name", ["", " ", "\u3000"])
def test_an_empty_name_in_a_language_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="a: names: zh: empty"):
        check(Taxonomy(nodes=(Node(id="a", name="A", names={"zh": name}),)), "here")


def test_norwegian_is_a_language_in_yaml_too(tmp_path: Path) -> None:
    (tmp_path / "taxonomy.yaml").write_text("nodes: [{id: run, name: Running, names: {no: Løping, 'nn': Løping}}]", encoding="utf-8")
    taxonomy = load(tmp_path / "taxonomy.yaml")
    assert taxonomy.languages == ("nn", "no")
    assert taxonomy.label("run", "no") == "Løping"


@pytest.mark.parametrize("names", ["跑步", "[跑步]", "{zh: 1}", "{1: 跑步}", "{zh: }"])
def test_names_are_texts_by_language(names: str, tmp_path: Path) -> None:
    (tmp_path / "taxonomy.yaml").write_text(f"nodes: [{{id: run, name: Running, names: {names}}}]", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"nodes\.0\.names"):
        load(tmp_path / "taxonomy.yaml")


def test_fingerprint_follows_every_field_of_a_node() -> None:
    node = Node(id="a", name="A")
    variants = [
        node,
        *(
            node.model_copy(update=change)
            for change in ({"name": "B"}, {"names": {"zh": "甲"}}, {"description": "x"}, {"iab": "410"}, {"sensitive": True}, {"id": "b"})
        ),
    ]
    assert len({Taxonomy(nodes=(each,)).fingerprint for each in variants}) == len(variants)
    assert Taxonomy(nodes=(Node(id="a", name="A"),)).fingerprint == Taxonomy(nodes=(node,)).fingerprint


names = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["yes", "1", "null", "~", "2026-01-01", "a: b", "- x", "#no", " a ", "\ufeff", "\x85", "\u2028", "😀"]
)
languages = st.dictionaries(st.sampled_from(["zh", "de", "no", "is"]), names.filter(lambda name: bool(name.strip())), max_size=2)
nodes_of_a_forest = st.lists(st.tuples(names, languages, st.text(max_size=30), st.booleans(), st.integers(-1, 5)), min_size=1, max_size=6)


@given(drawn=nodes_of_a_forest, name=names, version=names)
@settings(max_examples=50, deadline=None)
def test_a_written_taxonomy_reads_back_equal(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[str, dict[str, str], str, bool, int]], name: str, version: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    nodes = tuple(  # a parent stands above its child, so that there is no cycle
        Node(
            id=f"n{n}",
            name=called,
            names=others,
            description=text,
            sensitive=sensitive,
            iab=str(n + 1),
            parent=f"n{parent}" if 0 <= parent < n else None,
        )
        for n, (called, others, text, sensitive, parent) in enumerate(drawn)
    )
    taxonomy = Taxonomy(name=name, version=version, nodes=nodes)
    write_text(path, to_yaml(taxonomy))
    assert load(path) == taxonomy


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_the_audience_table_is_read_whatever_its_line_ends(tsv: Path, newline: str, mark: str) -> None:
    tsv.write_bytes((mark + newline.join(AUDIENCE_ROWS) + newline).encode())
    taxonomy = import_iab(tsv)
    assert (taxonomy.name, taxonomy.segtax) == ("table", AUDIENCE_1_1)
    assert [(node.id, node.parent, node.name, node.iab) for node in taxonomy.nodes] == [
        ("1", None, "Demographic", "1"),
        ("2", "1", "Age Range", "2"),
        ("206", None, "Interest", "206"),
        ("404", "206", "Health and Medical Services", "404"),
        ("407", "404", "Medical Health", "407"),
        ("408", "407", "Café & “Gym” 🏋", "408"),
    ]
    assert taxonomy.by_id["408"].description == "Interest > Health and Medical Services > Medical Health > Café & “Gym” 🏋"
    assert taxonomy.sensitive == {"407", "408"}  # 407 is medicine; 408 lies below it here


@pytest.mark.parametrize("tier_1", ["Interest", "Interest*"])
def test_one_top_branch_is_kept(tsv: Path, tier_1: str) -> None:
    tsv.write_text("\n".join(AUDIENCE_ROWS), encoding="utf-8")
    assert [node.id for node in import_iab(tsv, tier_1).nodes] == ["206", "404", "407", "408"]


def test_an_unknown_top_branch_brings_those_there_are(tsv: Path) -> None:
    tsv.write_text("\n".join(AUDIENCE_ROWS), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no rows under 'Interests'; its top branches: \['Demographic', 'Interest'\]"):
        import_iab(tsv, "Interests")


@pytest.mark.parametrize(("version", "segtax"), [("v3.1", CONTENT_3), ("v3.0", CONTENT_3), ("v2.2", CONTENT_2_2)])
def test_the_content_table_has_two_header_rows_and_marks_sensitive_itself(tsv: Path, version: str, segtax: int) -> None:
    rows = [
        CONTENT_TITLE.format(version=version),
        CONTENT_HEADER,
        content_row("186", "", "Family and Relationships", extension="SCD"),
        content_row("187", "186", "Family and Relationships", "Bereavement"),
        content_row("JLBCU7", "", "Entertainment"),
        content_row("324", "JLBCU7", "Entertainment", "Movies"),
        content_row("407", "324", "Entertainment", "Movies", "Indie"),  # 407 is medicine in the Audience table only
    ]
    tsv.write_bytes("\r\n".join(rows).encode())
    taxonomy = import_iab(tsv)
    assert taxonomy.segtax == segtax
    assert [(node.id, node.parent, node.iab) for node in taxonomy.nodes] == [
        ("186", None, "186"),
        ("187", "186", "187"),
        ("jlbcu7", None, "JLBCU7"),
        ("324", "jlbcu7", "324"),
        ("407", "324", "407"),
    ]
    assert taxonomy.sensitive == {"186", "187"}


def test_blank_short_and_tierless_rows_are_no_nodes(tsv: Path) -> None:
    tsv.write_text("\n".join([*AUDIENCE_ROWS[:2], "", "\t3", "\t" * 10, "\t3\t1\tname only", "", ""]))
    assert [node.id for node in import_iab(tsv).nodes] == ["1"]


def test_columns_are_found_by_name_wherever_they_stand(tsv: Path) -> None:
    tsv.write_text("Tier 1\tTier 2\t\t\tNotes\tParent ID\tUnique ID\nInterest\t\t\t\t\t\t206\n\nInterest\tPets\t\t\t\t206\t519\n")
    assert [(node.id, node.parent, node.name) for node in import_iab(tsv).nodes] == [("206", None, "Interest"), ("519", "206", "Pets")]


@pytest.mark.parametrize("name", ['17" screens', "Line\u2028break", "next\x85line", "form\x0cfeed", "x" * 100_000])
def test_a_cell_is_taken_as_it_stands(tsv: Path, name: str) -> None:
    rows = [
        AUDIENCE_HEADER,
        audience_row("1", "", "Demographic"),
        audience_row("2", "1", "Demographic", name),
        audience_row("3", "1", "Demographic", "Last"),
    ]
    tsv.write_text("\n".join(rows), encoding="utf-8")
    assert [node.name for node in import_iab(tsv).nodes] == ["Demographic", name, "Last"]


def test_a_cell_that_a_spreadsheet_quoted_is_unquoted(tsv: Path) -> None:
    tsv.write_text("\n".join([AUDIENCE_HEADER, audience_row("1", "", '"17"" screens"')]), encoding="utf-8")
    assert [node.name for node in import_iab(tsv).nodes] == ['17" screens']


def test_a_quote_without_end_swallows_no_rows_silently(tsv: Path) -> None:
    tsv.write_text("\n".join([AUDIENCE_HEADER, '\t1\t\t\t"Unclosed', audience_row("2", "1", "Demographic", "Last")]), encoding="utf-8")
    with pytest.raises(ConfigError, match="table.tsv:3: not a table of tab-separated values"):  # the file ends inside the quotes on line 3
        import_iab(tsv)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no 'Unique ID' column"),
        (b"id,parent,name\n1,,Sports\n", "no 'Unique ID' column"),
        (b"Unique ID,Parent ID,Tier 1\n1,,Sports\n", "no 'Unique ID' column"),
        (b"\n\n\nUnique ID\tParent ID\tTier 1\n1\t\tSports\n", "no 'Unique ID' column in its first three rows"),
        (b"Unique ID\tTier 1\n1\tSports\n", "expected the columns Parent and Tier 1 beside Unique ID"),
        (b"Unique ID\tParent ID\tName\n1\t\tSports\n", "expected the columns Parent ID and Tier 1"),
        (AUDIENCE_HEADER.encode(), "no rows"),
        ("\n".join(AUDIENCE_ROWS).encode("utf-16"), "can't be read as UTF-8 text"),
        (b"Unique ID\tParent ID\tTier 1\n1\t\tCaf\xe9\n", "can't be read as UTF-8 text"),
    ],
)
def test_a_file_that_is_no_iab_table_is_refused(tsv: Path, content: bytes, message: str) -> None:
    tsv.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        import_iab(tsv)
    assert str(caught.value).startswith(str(tsv))
    assert message in str(caught.value)


def test_a_missing_table_is_refused(tsv: Path) -> None:
    with pytest.raises(ConfigError, match="can't be read"):
        import_iab(tsv)


def test_mistakes_in_a_table_are_all_told(tsv: Path) -> None:
    rows = [
        *AUDIENCE_ROWS,
        audience_row("408", "206", "Interest", "Again"),
        audience_row("409", "9999", "Interest", "Orphan"),
        audience_row("9998", "206", "Interest", "New"),
    ]
    tsv.write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        import_iab(tsv)
    assert str(caught.value).splitlines()[0] == f"{tsv}: 3 mistakes"
    for part in ("duplicate id '408'", "409: unknown parent '9999'", "9998: iab '9998' is no id"):
        assert part in str(caught.value)


def test_the_listed_ids_are_as_many_as_the_table_has() -> None:
    assert len(audience_ids()) == 1558
    assert audience_ids() >= AUDIENCE_SENSITIVE
    assert not audience_ids() & {"0", "198", "205", "349", "1680", "0410"}


def test_the_whole_audience_table(root: Path) -> None:
    path = root.parent / "shared" / "taxonomies" / "iab-audience-1.1.tsv"
    if not path.exists():
        pytest.skip("the IAB's table is not part of the repository")
    taxonomy = import_iab(path)
    assert len(taxonomy.nodes) == 1558
    assert {node.iab for node in taxonomy.nodes} == audience_ids()
    assert len(import_iab(path, "Interest").nodes) == 497
    assert set(taxonomy.sensitive) >= AUDIENCE_SENSITIVE


def test_the_committed_taxonomy_loads(root: Path) -> None:
    taxonomy = load(root / "data" / "taxonomy.yaml")
    assert len(taxonomy.leaves) == 42
    assert {node.parent for node in taxonomy.nodes} - {None} == set(taxonomy.children)
    assert all(node.description for node in taxonomy.nodes)
    assert taxonomy.languages == ("zh",)
    assert taxonomy.label("sports.running", "zh") == "跑步"
    chinese = [node.names["zh"] for node in taxonomy.nodes]
    assert all(re.fullmatch(r"[\u4e00-\u9fff]+(DIY)?", name) for name in chinese)
    assert len(set(chinese)) == len(chinese) == 56
