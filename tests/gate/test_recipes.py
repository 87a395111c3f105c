"""The action and the recipes of the documentation: their steps are run, as a CI service would run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from edgerecover.demo import demo_files

ROOT = Path(__file__).resolve().parents[2]
ACTION = ROOT / "action.yml"
GUIDE = ROOT / "docs" / "how-to" / "gate-a-release-in-ci.md"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


def recipe(name):
    text = GUIDE.read_text(encoding="utf-8")
    (body,) = re.findall(rf"<!-- recipe: {name} -->\n```yaml\n(.*?)```", text, re.DOTALL)
    return yaml.safe_load(body)


@pytest.fixture
def shell(tmp_path):
    """Runs a step's script where the job is, with `edgerecover` and a python3 that installs nothing but says so."""
    tools, job = tmp_path / "tools", tmp_path / "job"
    tools.mkdir()
    job.mkdir()
    python, asked = sys.executable, tmp_path / "pip.txt"
    (tools / "python3").write_text(
        f'#!/bin/sh\nif [ "$1 $2" = "-m pip" ]; then echo "$@" >> {asked}; else exec {python} "$@"; fi\n'
    )
    (tools / "edgerecover").write_text(f'#!/bin/sh\nexec {python} -m edgerecover "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def shell(script, **variables):
        # As GitHub runs `shell: bash`.
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=job,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{tools}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    shell.job, shell.asked = job, asked
    return shell


def substituted(text, known):
    """With every `${{ … }}` replaced; one that is not known is an error."""
    return EXPRESSION.sub(lambda found: known[found[1]], text)


class Job:
    """Runs the steps of composite actions and jobs; what `uses:` somebody else's action is left out."""

    def __init__(self, shell, **github):
        self.shell, self.outputs = shell, {}
        self.github = {f"github.{name}": value for name, value in github.items()}
        self.summary = shell.job / "summary.md"

    def run_action(self, given):
        """Our action with its inputs; the exit code of its last step, or of the first that failed."""
        action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        assert given.keys() <= action["inputs"].keys()
        inputs = {}
        for name, described in action["inputs"].items():
            assert name in given or not described.get("required")
            inputs[f"inputs.{name}"] = str(given.get(name, described.get("default", "")))
        known = {**inputs, "github.action_path": str(ROOT)}
        for step in action["runs"]["steps"]:
            assert step["shell"] == "bash"
            assert "${{" not in step["run"], "inputs are variables, not text of a script"
            if self.wants(step.get("if", ""), known):
                done = self.run(step, {name: substituted(value, known) for name, value in step["env"].items()})
                if done.returncode:
                    break
        outputs = {name: described["value"] for name, described in action["outputs"].items()}
        return done, {name: substituted(value, self.outputs) for name, value in outputs.items()}

    def wants(self, condition, known):
        left, _, right = EXPRESSION.sub(r"\1", condition).partition(" == ")
        return not condition or condition == "always()" or {**known, **self.github}[left] == right.strip("'")

    def run(self, step, variables, known=None):
        output = self.shell.job / "output.txt"
        output.write_text("")
        done = self.shell(
            substituted(step["run"], known or {}),
            GITHUB_OUTPUT=str(output),
            GITHUB_STEP_SUMMARY=str(self.summary),
            **variables,
        )
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.outputs[f"steps.{step.get('id')}.outputs.{name}"] = value
        return done


@pytest.fixture
def bundle(make_release, shell):
    """A release in the job's folder."""

    def bundle(name, **report):
        made = make_release(name, **report)
        return made.rename(shell.job / name)

    return bundle


NO_MEASURE = {"arguments": "--no-measure\n"}


def test_the_action_gates_a_bundle_and_tells_the_job(shell, bundle):
    bundle("new.bundle")
    job = Job(shell)
    asked = {"bundle": "new.bundle", "baseline": "last.bundle", "init-baseline": "true", **NO_MEASURE}
    done, outputs = job.run_action(asked)
    assert (done.returncode, outputs) == (0, {"verdict": "pass", "exit-code": "0"}), done.stderr
    assert shell.asked.read_text().split()[-1] == str(ROOT)
    assert job.summary.read_text().startswith("## ✅ PASS: new.bundle for toy")
    assert (shell.job / "edgerecover-gate.xml").is_file()
    assert json.loads((shell.job / "edgerecover-gate.json").read_text())["verdict"] == "pass"
    assert "::notice title=edgerecover gate%3A agreement_kept skip::" in done.stderr
    assert (shell.job / "last.bundle" / "manifest.json").is_file()


def test_the_action_fails_where_a_gate_does_unless_told_not_to(shell, bundle):
    bundle("new.bundle", digits="1" * 20 + "0" * 80)
    asked = {"bundle": "new.bundle", "install": "false", **NO_MEASURE}
    done, outputs = Job(shell).run_action(asked)
    assert (done.returncode, outputs) == (1, {"verdict": "fail", "exit-code": "1"})
    assert "::error title=edgerecover gate%3A agreement fail::" in done.stderr
    assert not shell.asked.exists()
    done, outputs = Job(shell).run_action({**asked, "exit-zero": "true"})
    assert (done.returncode, outputs) == (0, {"verdict": "fail", "exit-code": "0"})


def test_the_action_tells_a_bundle_that_does_not_verify_whatever_was_there_before(shell, bundle):
    (bundle("new.bundle") / "model.onnx").write_bytes(b"another")
    (shell.job / "edgerecover-gate.json").write_text('{"verdict": "pass"}')
    job = Job(shell)
    done, outputs = job.run_action({"bundle": "new.bundle", "exit-zero": "true"})
    assert (done.returncode, outputs) == (4, {"verdict": "error", "exit-code": "4"})
    assert job.summary.read_text().startswith("## ❌ ERROR: new.bundle")
    assert done.stderr.count("::error title=edgerecover gate::") == 1
    assert 'errors="1"' in (shell.job / "edgerecover-gate.xml").read_text()


def test_a_name_is_never_a_command_or_a_flag(shell, bundle):
    odd = "--exit-zero $(touch hacked) `touch hacked`; touch hacked"
    bundle("new.bundle").rename(shell.job / odd)
    done, outputs = Job(shell).run_action({"bundle": odd, **NO_MEASURE})
    assert (done.returncode, outputs["verdict"]) == (0, "pass"), done.stderr
    assert not (shell.job / "hacked").exists()


@pytest.mark.parametrize("branch", ["main", "topic"])
def test_the_recipe_for_github_runs(shell, bundle, branch):
    new = bundle("new.bundle")
    (job_in_file,) = recipe("github")["jobs"].values()
    job = Job(shell, ref=f"refs/heads/{branch}", sha="0" * 40)
    (shell.job / "last.bundle").mkdir()
    (shell.job / "last.bundle").rmdir()
    ran = []
    for step in job_in_file["steps"]:
        if "edgerecover@" in step.get("uses", ""):
            asked = {**step["with"], "arguments": step["with"]["arguments"] + "--no-measure\n"}
            done, outputs = job.run_action(asked)
            job.outputs |= {f"steps.{step['id']}.outputs.{name}": value for name, value in outputs.items()}
        elif "run" in step and job.wants(step.get("if", ""), {}):
            done = job.run(step, {}, job.outputs)
        else:
            assert "run" in step or step["uses"].startswith("actions/")
            continue
        ran.append(step.get("name", "gate"))
        assert done.returncode == 0, done.stderr
    kept = ["Keep it as the next baseline"] if branch == "main" else []
    assert ran == ["gate", "Show the verdict", *kept]
    assert (shell.job / "last.bundle" / "manifest.json").read_bytes() == (new / "manifest.json").read_bytes()


def test_the_recipe_for_gitlab_runs_and_measures(shell, bundle):
    bundle("new.bundle")
    job = recipe("gitlab")["gate"]
    assert job["allow_failure"]["exit_codes"] == 5
    for branch, kept in (("main", True), ("topic", True)):
        for line in [*job["before_script"], *job["script"]]:
            done = shell(line, CI_COMMIT_BRANCH=branch, CI_DEFAULT_BRANCH="main")
            assert done.returncode in (0, 5), done.stderr
        assert (shell.job / "last.bundle").is_dir() is kept
    assert all(
        (shell.job / path).is_file() for path in (*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"])
    )
    assert json.loads((shell.job / "gate.json").read_text())["comparison"]["how"].startswith("in turns")


@pytest.mark.slow
def test_the_recipe_that_builds_a_bundle_runs(shell):
    job = recipe("github-build")["jobs"]["bundle"]
    project = {"model.pt": demo_files().pruned, "dense.pt": demo_files().dense}
    for name, path in project.items():
        torch.save(load_file(path), shell.job / name)
    (shell.job / "models.py").write_text("from edgerecover.demo.network import digits_net as net\n")
    (shell.job / "model.toml").write_text(
        'architecture = "models.py:net"\nteacher = "dense.pt"\n'
        "[input]\nshape = [1, 8, 8]\nmean = [0.3052]\nstd = [0.3757]\n"
    )
    variables = {**job["env"], "TARGET": "onnx-generic", "PROFILE": "smoke", "OMP_NUM_THREADS": "1"}
    for step in job["steps"]:
        if "run" in step:
            done = shell(step["run"], **variables)
            assert done.returncode == 0, done.stderr
    assert shell.asked.read_text().split() == ["-m", "pip", "install", "--quiet", "./edgerecover"]
    uploaded = next(step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", ""))
    assert (shell.job / uploaded / "manifest.json").is_file()
    cached = next(step["with"]["path"] for step in job["steps"] if "cache" in step.get("uses", ""))
    assert list((shell.job / cached).glob("dreams-*"))

    (shell.job / "model.pt").write_bytes(b"")
    build = next(step for step in job["steps"] if step.get("name") == "Build")
    assert shell(build["run"], **variables).returncode == 2
