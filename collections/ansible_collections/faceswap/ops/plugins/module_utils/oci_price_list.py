# Copyright: the faceswap-oci maintainers
# MIT License (see LICENSE)
"""Oracle's list prices as they were on DATE, for when Oracle's own files cannot be read. Plain data, no code.

USD for pay as you go, without tax and discounts. What is free up to an amount (A1) has the price beyond it.

Facts that Oracle publishes: part numbers and prices from
https://apexapps.oracle.com/pls/apex/cetools/api/v1/products/?currencyCode=USD (last changed 2026-03-03), parts of
shapes and preemptible from https://www.oracle.com/a/ocom/docs/cloudestimator2/data/shapes.json (of 2026-01-22), both
as someone fetched them on DATE and published them (github.com/krispn/OCI-Pricing-Calculator, data/). Of
September 2026 there are excerpts by others, with the same prices: A10 and block volumes of the 23rd; V100, both A100
and H100 of the 18th. Where sources differ, the price list is taken, for the bill follows it: blogs have the A10
at 1.27 and 1.52 and the H200 at 12.25. VM.Standard.E2.1.Micro is not in shapes.json: it has the free part here, and
no preemptible capacity, as Oracle's announcement of that says.
"""

from __future__ import annotations

DATE = "2026-03-17"

# The boot volume: a GB for a month, and one volume performance unit (VPU) of one GB for a month
STORAGE_PART, PERFORMANCE_PART = "B91961", "B91962"

# part number: (what it is, USD). An hour of an OCPU, a GB of memory, a GPU; a month of a GB, a VPU of a GB
PARTS: dict[str, tuple[str, float]] = {
    "B88514": ("Compute - Virtual Machine Standard - X7", 0.0638),
    "B88516": ("Compute - Virtual Machine Dense I/O - X7", 0.1275),
    "B88518": ("Compute - Virtual Machine GPU Standard - X7", 1.275),  # P100
    "B89734": ("Compute - GPU Standard - V2", 2.95),  # V100
    "B91444": ("Compute - Virtual Machine Standard - E2 Micro - Free", 0.0),
    "B91961": ("Storage - Block Volume - Storage", 0.0255),
    "B91962": ("Storage - Block Volume - Performance Units", 0.0017),
    "B92306": ("Compute - Standard - E3 - OCPU", 0.025),
    "B92307": ("Compute - Standard - E3 - Memory", 0.0015),
    "B92740": ("Compute - GPU - E3", 3.05),  # A100, 40 GB
    "B93113": ("Compute - Standard - E4 - OCPU", 0.025),
    "B93114": ("Compute - Standard - E4 - Memory", 0.0015),
    "B93297": ("Compute - Standard - A1 - OCPU", 0.01),
    "B93298": ("Compute - Standard - A1 - Memory", 0.0015),
    "B93311": ("Compute - Optimized - X9 - OCPU", 0.054),
    "B93312": ("Compute - Optimized - X9 - Memory", 0.0015),
    "B94176": ("Compute - Standard - X9 - OCPU", 0.04),
    "B94177": ("Compute - Standard - X9 - Memory", 0.0015),
    "B95907": ("Compute - GPU - A100 - v2", 4.0),  # 80 GB
    "B95909": ("Compute - GPU - A10", 2.0),
    "B97384": ("Compute - Standard - E5 - OCPU", 0.03),
    "B97385": ("Compute - Standard - E5 - Memory", 0.002),
    "B98415": ("OCI - Compute - GPU - H100", 10.0),
    "B109479": ("Compute - GPU - L40S", 3.5),
    "B109529": ("Compute - Standard - A2 OCPU", 0.014),
    "B109530": ("Compute - Standard - A2 Memory", 0.002),
    "B110519": ("OCI - Compute - GPU - H200", 10.0),
    "B111129": ("OCI - Compute - Standard - E6 - OCPU", 0.03),
    "B111130": ("OCI - Compute - Standard - E6 - Memory", 0.002),
    "B112145": ("OCI - Compute - Standard - A4 - OCPU", 0.0138),
    "B112146": ("OCI - Compute - Standard - A4 - Memory", 0.0027),
}

# shape: (may be preemptible, its parts: (part number, what is counted, how many; 0 as many as are asked for))
SHAPES: dict[str, tuple[bool, tuple[tuple[str, str, float], ...]]] = {
    "BM.GPU.A10.4": (False, (("B95909", "gpu", 4),)),
    "BM.GPU.A100-v2.8": (False, (("B95907", "gpu", 8),)),
    "BM.GPU.H100.8": (False, (("B98415", "gpu", 8),)),
    "BM.GPU.H200.8": (False, (("B110519", "gpu", 8),)),
    "BM.GPU.L40S.4": (False, (("B109479", "gpu", 4),)),
    "BM.GPU3.8": (False, (("B89734", "gpu", 8),)),
    "BM.GPU4.8": (False, (("B92740", "gpu", 8),)),
    "VM.DenseIO2.16": (True, (("B88516", "ocpu", 16),)),
    "VM.DenseIO2.24": (True, (("B88516", "ocpu", 24),)),
    "VM.DenseIO2.8": (True, (("B88516", "ocpu", 8),)),
    "VM.GPU.A10.1": (False, (("B95909", "gpu", 1),)),
    "VM.GPU.A10.2": (False, (("B95909", "gpu", 2),)),
    "VM.GPU2.1": (True, (("B88518", "gpu", 1),)),
    "VM.GPU3.1": (True, (("B89734", "gpu", 1),)),
    "VM.GPU3.2": (True, (("B89734", "gpu", 2),)),
    "VM.GPU3.4": (True, (("B89734", "gpu", 4),)),
    "VM.Optimized3.Flex": (True, (("B93311", "ocpu", 0), ("B93312", "memory", 0))),
    "VM.Standard.A1.Flex": (True, (("B93297", "ocpu", 0), ("B93298", "memory", 0))),
    "VM.Standard.A2.Flex": (False, (("B109529", "ocpu", 0), ("B109530", "memory", 0))),
    "VM.Standard.A4.Flex": (True, (("B112145", "ocpu", 0), ("B112146", "memory", 0))),
    "VM.Standard.E2.1.Micro": (False, (("B91444", "ocpu", 1),)),
    "VM.Standard.E3.Flex": (True, (("B92306", "ocpu", 0), ("B92307", "memory", 0))),
    "VM.Standard.E4.Flex": (True, (("B93113", "ocpu", 0), ("B93114", "memory", 0))),
    "VM.Standard.E5.Flex": (True, (("B97384", "ocpu", 0), ("B97385", "memory", 0))),
    "VM.Standard.E6.Flex": (True, (("B111129", "ocpu", 0), ("B111130", "memory", 0))),
    "VM.Standard2.1": (True, (("B88514", "ocpu", 1),)),
    "VM.Standard2.2": (True, (("B88514", "ocpu", 2),)),
    "VM.Standard2.4": (True, (("B88514", "ocpu", 4),)),
    "VM.Standard2.8": (True, (("B88514", "ocpu", 8),)),
    "VM.Standard2.16": (True, (("B88514", "ocpu", 16),)),
    "VM.Standard2.24": (True, (("B88514", "ocpu", 24),)),
    "VM.Standard3.Flex": (True, (("B94176", "ocpu", 0), ("B94177", "memory", 0))),
}
