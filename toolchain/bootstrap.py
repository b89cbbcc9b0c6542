"""Makes a fresh clone ready: the Python environment and the tools. `python3 -m toolchain.bootstrap`.

Runs with any plain Python, so that one which is too old is told so: no syntax in here that Python 3.6 cannot read, and
nothing is imported at the top that has such syntax.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys

REPO = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(REPO, ".venv")
LOCK = os.path.join(REPO, "requirements.lock")
UV_LOCK = os.path.join(REPO, "toolchain", "locks", "uv.txt")
PROJECT = os.path.join(REPO, "pyproject.toml")


class BootstrapError(Exception):
    """Setting up cannot go on. The second argument is a hint."""


def fingerprint():
    digest = hashlib.sha256(sys.version.encode() + sys.executable.encode() + REPO.encode())
    for name in (LOCK, UV_LOCK, PROJECT):
        with open(name, "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def run(command, what):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
    if done.returncode:
        raise BootstrapError("%s failed:\n%s" % (what, done.stdout.strip()[-2000:]), "run it again; what was fetched is kept")


def python_environment():
    """The virtual environment, in step with requirements.lock. Quick when it is."""
    stamp = os.path.join(VENV, ".in-step")
    wanted = fingerprint()
    try:
        with open(stamp) as file:
            if file.read() == wanted:
                return
    except IOError:
        pass
    print("python environment: .venv", flush=True)
    if os.path.exists(stamp):
        os.unlink(stamp)
    python = os.path.join(VENV, "bin", "python")
    if subprocess.call([python, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) if os.path.exists(python) else True:
        # Also what an interrupted run left: an environment without pip cannot be mended from inside.
        shutil.rmtree(VENV, ignore_errors=True)
        try:
            run([sys.executable, "-m", "venv", VENV], "python -m venv")
        except BootstrapError as error:
            hint = "on Debian and Ubuntu: apt install python3-venv" if "ensurepip" in str(error) else error.args[1]
            raise BootstrapError(error.args[0], hint)
    run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes", "-r", UV_LOCK], "installing uv")
    uv = [os.path.join(VENV, "bin", "uv"), "pip"]
    # uv itself stays: it is in no lock but its own.
    run(uv + ["install", "--quiet", "--python", python, "--compile-bytecode", "--require-hashes", "-r", LOCK], "installing requirements.lock")
    run(uv + ["install", "--quiet", "--python", python, "--no-deps", "--no-build-isolation", "--editable", REPO], "installing this project")
    with open(stamp + ".new", "w") as file:
        file.write(wanted)
    os.replace(stamp + ".new", stamp)


def tools():
    """Every tool, and Pulumi's plugins; by the environment's own Python."""
    code = "from toolchain.bootstrap import _tools; _tools()"
    done = subprocess.call([os.path.join(VENV, "bin", "python"), "-c", code], cwd=REPO)
    if done:
        raise SystemExit(done)


def _tools():
    from toolchain import env, offline, tools

    try:
        tools.acquire_all()
        home = env.variables()["PULUMI_HOME"]
        for line in offline.install(tools.path("pulumi"), tools.Path(home)):
            print(line)
    except (tools.ToolError, offline.OfflineError) as error:
        _fail(error, getattr(error, "hint", ""))


def _fail(message, hint):
    sys.stderr.write("error: %s\n" % message)
    if hint:
        sys.stderr.write("hint: %s\n" % hint)
    raise SystemExit(1)


def main():
    if sys.version_info < (3, 11):
        _fail("Python 3.11 or newer is needed, this is %s: %s" % (sys.version.split()[0], sys.executable), "make PYTHON=python3.12 up")
    parser = argparse.ArgumentParser(prog="python3 -m toolchain.bootstrap")
    parser.add_argument("--only", choices=["python", "tools"], help="one part instead of both")
    parser.add_argument("--clean-cache", action="store_true", help="remove the built tools")
    arguments = parser.parse_args()
    if arguments.clean_cache:
        from toolchain import paths

        shutil.rmtree(paths.CACHE, ignore_errors=True)
        print("removed %s" % paths.CACHE)
        return
    try:
        if arguments.only != "tools":
            python_environment()
        if arguments.only != "python":
            tools()
    except BootstrapError as error:
        _fail(error.args[0], error.args[1])
    except KeyboardInterrupt:
        _fail("interrupted", "run it again; what is done is kept")


if __name__ == "__main__":
    main()
