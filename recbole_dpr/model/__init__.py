"""DPR: a backbone, a reader of prompts, fusion, and a mixture of experts."""
