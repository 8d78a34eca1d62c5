"""Turn a public set of videos of people, in the folders that it comes in, into a training set.

python pipelines/import_data.py TikTok_dataset --layout tiktok --out tiktok
python pipelines/import_data.py UBC_fashion --layout ubc_fashion --out fashion
python pipelines/import_data.py HumanVid/videos --layout humanvid --captions HumanVid/captions --out humanvid
"""

from lisa_video.cli import run_job
from lisa_video.importing.config import ImportDataConfig


def check(config: ImportDataConfig) -> None:
    from lisa_video.importing.job import check_import

    check_import(config)


def run(config: ImportDataConfig) -> None:
    from lisa_video.importing.job import run_import

    run_import(config)


if __name__ == "__main__":
    run_job(ImportDataConfig, run, check=check, description=__doc__, positional="source")
