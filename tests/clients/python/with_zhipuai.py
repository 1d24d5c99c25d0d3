"""GLM's older SDK for Python, as bigmodel.cn has it."""

from zhipuai import ZhipuAI

import zhipu

zhipu.run(ZhipuAI)
