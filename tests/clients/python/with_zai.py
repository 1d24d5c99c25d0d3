"""GLM's SDK for Python, as z.ai has it."""

from zai import ZaiClient

import zhipu

zhipu.run(ZaiClient)
