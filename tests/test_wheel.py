"""The wheel alone, in an environment of its own, away from the checkout."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path


def test_the_wheel_runs_outside_the_checkout(root: Path, tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(root)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next((tmp_path / "dist").glob("penchant-*.whl"))
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    )
    target = Path(site.stdout.strip())
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--no-deps",
        "--no-index",
        "--quiet",
        "--disable-pip-version-check",
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    # dependencies come from the environment at hand; only its own files, so that its editable penchant stays out
    (target / "zz_dependencies.pth").write_text(f"import sys; sys.path.append({sysconfig.get_path('purelib')!r})\n", encoding="utf-8")
    clean = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    where = subprocess.run(
        [python, "-c", "import penchant; print(penchant.__file__)"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True
    )
    assert Path(where.stdout.strip()).is_relative_to(home)
    penchant = home / "bin" / "penchant"
    assert (
        "Turn what people read"
        in subprocess.run([penchant, "--help"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=True).stdout
    )
    (tmp_path / "events.csv").write_text("who,when,what\nu1,2026-01-02,Trail shoes\nu2,nonsense,Cat litter\n", encoding="utf-8")
    (tmp_path / "map.yaml").write_text(
        "sources: {shop: {files: [events.csv], columns: {user_id: who, occurred_at: when, title: what, action: {constant: view}}}}\n",
        encoding="utf-8",
    )
    run = subprocess.run(
        [penchant, "ingest", "map.yaml", "-o", "out"], cwd=tmp_path, env=clean, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert "shop: 2 rows, 1 events, 1 rejected" in run.stdout
    # the page templates travel in the wheel
    pages = subprocess.run(
        [python, "-c", "from penchant.reports.page import ENVIRONMENT; print(ENVIRONMENT.list_templates())"],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "overview.html" in pages.stdout
