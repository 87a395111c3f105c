def test_the_manifest_is_named_where_it_is_known(report, render):
    assert "bundle's manifest " + "ab" * 32 in render(report, None, "ab" * 32).text
    assert "bundle's manifest" not in render(report).text
