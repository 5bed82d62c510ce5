import matplotlib
import pytest

from lwmt_sionna.runs.figures import panels, policy_style


@pytest.mark.parametrize("extension", ["png", "svg"])
def test_panels_are_written_with_one_legend_and_nothing_left_over(tmp_path, extension):
    path = tmp_path / "figures" / f"figure.{extension}"
    before = dict(matplotlib.rcParams)
    with panels(path, 1, 2, "title") as grid:
        for axes in grid[0]:
            axes.plot([0, 1], [1, 2], **policy_style("hold"))
        figure = axes.figure
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["hold"]
    assert figure.get_suptitle() == "title"
    assert path.stat().st_size > 0
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # The style of the caller is left alone.
    assert dict(matplotlib.rcParams) == before


def test_colours_stay_with_their_policies():
    known = {policy_style(name)["color"] for name in ("perfect", "hold", "local_ar", "model")}
    assert len(known) == 4
    others = ["a", "b"]
    assert policy_style("hold", others) == policy_style("hold")
    assert len({policy_style(name, others)["color"] for name in others} | known) == 6
