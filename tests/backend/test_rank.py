"""Which of several processes this one is: from the command line, or from whoever started it."""

import pytest

from customcnn.backend.rank import Rank, find_rank, first_node
from customcnn.errors import CustomCNNError

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "MASTER_ADDR": "10.0.0.5", "MASTER_PORT": "29500"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
SLURM = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "12345", "SLURM_STEP_NODELIST": "gpu[07-09,12]"}


def test_without_hosts_a_process_trains_alone():
    assert find_rank(None, environ=TORCHRUN) is None


def test_the_command_line_says_all():
    assert find_rank("10.0.0.5:7654", 1, 2, {}) == Rank("10.0.0.5:7654", 1, 2)
    assert find_rank("[fd00::1]:7654", 0, 1, {}) == Rank("[fd00::1]:7654", 0, 1)


@pytest.mark.parametrize(
    ("hosts", "environ", "rank"),
    [
        ("env", TORCHRUN, Rank("10.0.0.5:29500", 3, 4)),
        ("env", {**TORCHRUN, "MASTER_ADDR": "fd00::1"}, Rank("[fd00::1]:29500", 3, 4)),
        ("env", {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "True"}, Rank("10.0.0.5:29501", 3, 4)),
        ("a:1", OPEN_MPI, Rank("a:1", 1, 2)),
        ("env", SLURM, Rank(f"gpu07:{61440 + 12345 % 4096}", 5, 8)),
        ("a:1", SLURM, Rank("a:1", 5, 8)),
        # A launcher inside a Slurm job counts more than the job.
        ("env", {**SLURM, **TORCHRUN}, Rank("10.0.0.5:29500", 3, 4)),
        ("env", {**SLURM, **OPEN_MPI}, Rank(f"gpu07:{61440 + 12345 % 4096}", 1, 2)),
        # Several processes share the host's GPUs, unless each sees one alone.
        ("env", {**TORCHRUN, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}, Rank("10.0.0.5:29500", 3, 4, 1)),
        (
            "env",
            {**TORCHRUN, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": "5"},
            Rank("10.0.0.5:29500", 3, 4),
        ),
        ("env", {**TORCHRUN, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}, Rank("10.0.0.5:29500", 3, 4)),
    ],
)
def test_launchers_say_it_in_the_environment(hosts, environ, rank):
    assert find_rank(hosts, environ=environ) == rank


def test_an_indexed_job_of_kubernetes_knows_its_number_but_not_how_many_there_are():
    assert find_rank("job-0.net:7654", world=3, environ={"JOB_COMPLETION_INDEX": "2"}) == Rank("job-0.net:7654", 2, 3)


def test_the_command_line_counts_more_than_the_environment():
    assert find_rank("a:1", 0, 2, TORCHRUN) == Rank("a:1", 0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, 0, None, {}), "no --hosts beside them"),
        (("a:1", None, 2, {}), "Give --rank."),
        (("a:1", 0, None, {}), "Give --world."),
        (("a:1", 2, 2, {}), "rank 2 of 2"),
        (("a:1", -1, 2, {}), "rank -1 of 2"),
        (("a:1", 0, 0, {}), "rank 0 of 0"),
        (("a", 0, 2, {}), "HOST:PORT of rank 0. Received: 'a'"),
        (("http://a:1", 0, 2, {}), "HOST:PORT of rank 0"),
        (("env", 0, 2, {}), "no address in the environment"),
        (("env", None, None, {**TORCHRUN, "RANK": "first"}), "RANK is a whole number"),
    ],
)
def test_what_is_missing_or_wrong_is_said(arguments, message):
    with pytest.raises(CustomCNNError, match=r"^[^\n]+$") as error:
        find_rank(*arguments)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("a[1-3]", "a1"), ("a[03,05],b", "a03"), ("a[1-2]-ib,b", "a1-ib"), ("n1[007]", "n1007")],
)
def test_first_node_of_a_list_of_slurm(nodes, first):
    assert first_node(nodes) == first
