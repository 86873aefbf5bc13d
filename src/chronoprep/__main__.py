from chronoprep.cli import main

if __name__ == "__main__":  # processes that an engine spawns import this file again
    main()
