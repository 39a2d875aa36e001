"""Wavefronts of shared memory, counted from PTX whose conflicts are known by construction."""

import pytest

from csm_kernels.shared_memory import inner_loop

HEAD = """
.visible .entry kernel(.param .u64 kernel_param_0)
.reqntid 32
{
	mov.u32 	%r1, %tid.x;
	mov.b32 	%r2, global_smem;
"""


def loop(setup: str, body: str, threads: int = 32) -> str:
    """A kernel that repeats `body`, its addresses made by `setup`."""
    head = HEAD.replace("reqntid 32", f"reqntid {threads}")
    return f"{head}{setup}\n$L__BB0_1:\n{body}\n\t@%p9 bra \t$L__BB0_1;\n\tret;\n}}\n"


@pytest.mark.parametrize("wide", [1, 2, 4])
@pytest.mark.parametrize("shift", range(10))
def test_a_stride_of_a_power_of_two_meets_as_many_lanes_in_a_bank_as_it_must(wide, shift):
    ptx = loop(
        f"\tshl.b32 \t%r3, %r1, {2 + shift};\n\tadd.s32 \t%r4, %r2, %r3;",
        f"\tld.shared.v{wide}.b32 \t{{%r5}}, [%r4+32];",
    )
    words = {lane * 2**shift + 8 + word for lane in range(32) for word in range(wide)}
    most = max(sum(word % 32 == bank for word in words) for bank in range(32))
    found = inner_loop(ptx)
    assert found.wavefronts == most
    assert found.conflicts == most - -(-len(words) // 32)


def test_one_word_for_all_lanes_is_one_wavefront_and_a_swizzle_takes_a_conflict_away():
    assert inner_loop(loop("", "\tld.shared.b32 \t%r5, [%r2];")).wavefronts == 1
    column = "\tshl.b32 \t%r3, %r1, 7;\n"  # lane i reads row i of [32, 32]: one bank
    assert inner_loop(loop(column, "\tst.shared.b32 \t[%r3], %r5;")).conflicts == 31
    swizzled = column + "\tshl.b32 \t%r4, %r1, 2;\n\txor.b32 \t%r3, %r3, %r4;"
    assert inner_loop(loop(swizzled, "\tst.shared.b32 \t[%r3], %r5;")).conflicts == 0


def test_warps_add_up_and_lanes_that_are_switched_off_do_not_count():
    setup = "\tshl.b32 \t%r3, %r1, 7;\n\tsetp.lt.u32 \t%p1, %r1, 3;"
    body = "\t@%p1 st.shared.b32 \t[%r3], %r5;"
    assert inner_loop(loop(setup, body)).wavefronts == 3
    assert inner_loop(loop(setup, body.replace("@%p1", ""), threads=64)).wavefronts == 64


@pytest.mark.parametrize(("matrices", "row", "wavefronts"), [(4, 4, 4), (4, 5, 32), (2, 5, 16), (1, 4, 1)])
def test_each_8_rows_of_a_matrix_read_are_served_together(matrices, row, wavefronts):
    # Rows of 16 bytes next to each other, or 128 bytes apart: there all 8 begin in one bank.
    setup = f"\tshl.b32 \t%r3, %r1, {row if row == 4 else 7};"
    body = f"\tldmatrix.sync.aligned.m8n8.x{matrices}.shared.b16 \t{{%r5}}, [%r3];"
    found = inner_loop(loop(setup, body))
    assert (found.wavefronts, found.conflicts) == (wavefronts, wavefronts - matrices)


def test_reads_of_neighbouring_words_count_as_one_wide_read_and_not_across_a_barrier():
    setup = "\tshl.b32 \t%r3, %r1, 4;"
    reads = [f"\tld.shared.b32 \t%r{5 + word}, [%r3+{4 * word}];" for word in range(4)]
    assert inner_loop(loop(setup, "\n".join(reads))).wavefronts == 4
    parted = [*reads[:2], "\tbar.sync \t0;", *reads[2:]]
    assert inner_loop(loop(setup, "\n".join(parted))).wavefronts == 8


def test_the_loop_with_the_most_multiplications_is_read_without_the_loops_inside_it():
    multiply = "\tfma.rn.f32 \t%f1, %f2, %f3, %f1;\n"
    packed = "\tfma.rn.f32x2 \t%rd1, %rd2, %rd3, %rd1;\n"
    inner = f"$L__BB0_2:\n{2 * multiply}{packed}\tld.shared.b32 \t%r5, [%r2];\n\t@%p1 bra \t$L__BB0_2;\n"
    outer = f"$L__BB0_1:\n{3 * multiply}{inner}\tst.shared.b32 \t[%r2], %r5;\n\t@%p2 bra \t$L__BB0_1;\n"
    ptx = HEAD + outer + "\tmma.sync.aligned.m16n8k8.row \t{%r1}, {%r2};\n\tret;\n}\n"
    without_matrix = inner_loop(ptx.replace("mma.sync", "other"))
    assert (without_matrix.fused, without_matrix.wavefronts) == (4, 1)
    assert inner_loop(ptx).matrix == 1


def test_an_address_defined_in_a_block_further_down_is_found_and_one_from_memory_is_refused():
    early = HEAD + (
        "\tbra.uni \t$L__BB0_2;\n$L__BB0_1:\n\tld.shared.b32 \t%r5, [%r3];\n\t@%p1 bra \t$L__BB0_1;\n"
        "$L__BB0_2:\n\tshl.b32 \t%r3, %r1, 2;\n\tbra.uni \t$L__BB0_1;\n}\n"
    )
    assert inner_loop(early).conflicts == 0
    with pytest.raises(RuntimeError, match="does not follow from threads"):
        inner_loop(loop("\tld.global.b32 \t%r3, [%rd1];", "\tld.shared.b32 \t%r5, [%r3];"))
    with pytest.raises(RuntimeError, match="reqntid"):
        inner_loop("")
